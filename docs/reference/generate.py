"""Writes the pages here from the code: `.venv/bin/python -m docs.reference.generate`. A test compares them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from safelight.api.azure.wire import GROUP, WORKSPACE
from safelight.cli.commands import COMMANDS, LazyCommand, command_line
from safelight.environment import ENV_PREFIX
from safelight.library_variables import SETTING_VARIABLES
from safelight.model.catalog import find_model
from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints, create_arm_app
from safelight.serving.backends.registry import find_factory
from safelight.serving.start import create_dispatcher
from safelight.settings import Settings

Json = dict[str, Any]

FOLDER = Path(__file__).parent
WIDTH = 100
GENERATED = "<!-- Written by `python -m docs.reference.generate` from the code; change the code, not this page. -->\n\n"
CLI_INTRODUCTION = """# Commands
What `--help` says, command by command. [Settings](settings.md) has the environment variable of each option of
`safelight serve`, and what has no option.
"""
SETTINGS_INTRODUCTION = """# Settings
Everything that a server can be told. An option comes before its variable, and that before the default. Other commands
read the same variables where they mean something to them. Times are in seconds, sizes in bytes. A variable
`SAFELIGHT_...` that is not in this table is refused, so that none is misspelt in silence.

"""
SETTINGS_END = """
In a deployment's `environment_variables` may stand, for that deployment alone: {names}.
"""
ROUTES_INTRODUCTION = """# Routes
A running server has the first part of this page, with forms to try it, at `/docs`, and as OpenAPI at `/openapi.json`.

## Pictures
The served model answers at these paths, with the server's key where one is set. A managed online endpoint answers at
the same paths for its own deployments: behind `/endpoints/NAME`, at the host `NAME.localhost`, or at the root for
whoever sends one of its keys.
"""
ARM_INTRODUCTION = f"""
## Control plane
What `azure-ai-ml` speaks, and the commands of this project too. Paths match in any case and `api-version` may be any.
All but `/metadata/endpoints` need the administrator's token: `Authorization: Bearer` with the content of `admin-token`
in the data directory. Long paths are shortened:
```
W={WORKSPACE}
G={GROUP}
```
"""


def pages() -> dict[str, str]:
    """Name and text of every generated page."""
    return {"cli.md": cli_page(), "routes.md": routes_page(), "settings.md": settings_page()}


def cli_page() -> str:
    command = command_line()
    context = type(command).context_class(command, info_name="safelight", terminal_width=WIDTH)
    return GENERATED + CLI_INTRODUCTION + "".join(_help(command, context))


def routes_page() -> str:
    pictures, control_plane = _openapi_documents()
    return "".join(
        (
            GENERATED,
            ROUTES_INTRODUCTION,
            *_sections(pictures),
            ARM_INTRODUCTION,
            *_arm_tables(control_plane),
        )
    )


def settings_page() -> str:
    serve = next(each for each in COMMANDS if each.name == "serve").load()
    options = {each.name: each.opts[0] for each in serve.params if each.opts[0].startswith("-")}
    rows = (
        f"| `{ENV_PREFIX}{name.upper()}` | {_code(options.get(name))} | {_code(_default(field.default))} "
        f"| {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    names = ", ".join(f"`{name}`" for name in SETTING_VARIABLES)
    table = "| variable | option | default | |\n|---|---|---|---|\n" + "".join(rows)
    return GENERATED + SETTINGS_INTRODUCTION + table + SETTINGS_END.format(names=names)


def _default(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None or value == () else f"{value:g}" if isinstance(value, float) else str(value)


def _code(text: str | None) -> str:
    return "" if text is None else f"`{text}`"


def _help(command: Any, context: Any) -> Iterator[str]:
    heading = "#" * min(2 + context.command_path.count(" "), 3)
    yield f"\n{heading} {context.command_path}\n```\n{command.get_help(context)}\n```\n"
    for name, listed in getattr(command, "commands", {}).items():
        each = listed.load() if isinstance(listed, LazyCommand) else listed
        yield from _help(each, type(each).context_class(each, info_name=name, parent=context, terminal_width=WIDTH))


def _openapi_documents() -> tuple[Json, Json]:
    """Of the server and of its control plane, put together as `safelight serve` does, but never started."""
    spec = find_model("black-forest-labs-flux.1-schnell").spec
    assert spec is not None, "the catalogue describes what it names"
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), database_url=None, encryption_keys=None)
        create_replicas = find_factory(settings)
        dispatcher = create_dispatcher(create_replicas, settings, Path(folder), spec)
        online = OnlineEndpoints(settings, create_replicas)
        apps = create_app(settings, dispatcher, online), create_arm_app(online.plane, settings)
        asyncio.run(online.stop())
        return apps[0].openapi(), apps[1].openapi()


def _operations(document: Json) -> list[tuple[str, Json]]:
    """`METHOD path` with its operation, those of one tag together, in the order of the code."""
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = list(dict.fromkeys(_tag(each) for each in operations))
    return sorted(operations, key=lambda each: tags.index(_tag(each)))


def _tag(operation: tuple[str, Json]) -> str:
    return str(operation[1]["tags"][0])


def _sections(document: Json) -> Iterator[str]:
    """One section for the routes that say the same about themselves."""
    told: dict[str, str] = {}
    for tag, operations in groupby(_operations(document), _tag):
        yield f"\n### {tag}\n"
        for summary, same in groupby(operations, lambda each: each[1]["summary"]):
            routes = list(same)
            yield f"\n**{summary}**\n```\n" + "".join(f"{route}\n" for route, _ in routes) + "```\n"
            details = "".join(_details(routes[0][1], document))
            first = told.setdefault(details, routes[0][0])
            yield details if first == routes[0][0] or "Body" not in details else f"As `{first}` otherwise.\n"


def _details(operation: Json, document: Json) -> Iterator[str]:
    if "description" in operation:
        yield f"{operation['description']}\n"
    for parameter in operation.get("parameters", []):
        yield f"- `{parameter['name']}` ({parameter['in']}): {_type(parameter['schema'], document)}\n"
    seen: list[str] = []
    for content_type, content in operation.get("requestBody", {}).get("content", {}).items():
        rows = [row for row in _fields(content["schema"], document) if row not in seen]
        yield f"\nBody, `{content_type}`{'; what differs' if seen else ''}:\n\n| field | type | |\n|---|---|---|\n"
        yield "".join(rows)
        seen += rows
    yield "\n" + "".join(f"- {status}: {answer}\n" for status, answer in _answers(operation))


def _answers(operation: Json) -> list[tuple[str, str]]:
    """FastAPI writes a 422 of its own by itself; no route answers it."""
    answers = ((status, answer["description"]) for status, answer in operation["responses"].items())
    return sorted(answer for answer in answers if answer != ("422", "Validation Error"))


def _fields(schema: Json, document: Json, prefix: str = "") -> Iterator[str]:
    """A row for each; those of an object that stand beside it too have theirs there."""
    schema = _resolved(schema, document)
    properties = schema.get("properties", {})
    for name, field in properties.items():
        (inner, *_) = _alternatives(field, document)
        needed = "required" if name in schema.get("required", ()) else ""
        words = "; ".join(filter(None, (needed, field.get("description", "").replace("|", "\\|"))))
        yield f"| `{prefix}{name}` | {_type(field, document)} | {words} |\n"
        if any(properties.get(each) != inner_field for each, inner_field in inner.get("properties", {}).items()):
            yield from _fields(inner, document, f"{prefix}{name}.")


def _alternatives(schema: Json, document: Json) -> list[Json]:
    """What a value may be, but for null: leaving a field out says the same."""
    alternatives = [_resolved(each, document) for each in schema.get("anyOf", [schema])]
    return [each for each in alternatives if each.get("type") != "null"]


def _type(schema: Json, document: Json) -> str:
    return " or ".join(dict.fromkeys(_type_name(each, document) for each in _alternatives(schema, document)))


def _type_name(schema: Json, document: Json) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), document)}"
    if schema.get("format") == "binary":
        return "file"
    return str(schema.get("type", "any"))


def _resolved(schema: Json, document: Json) -> Json:
    if "$ref" not in schema:
        return schema
    found: Json = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _arm_tables(document: Json) -> Iterator[str]:
    for tag, operations in groupby(_operations(document), _tag):
        routes = list(operations)
        yield f"\n### {tag}\n| route | what | answers |\n|---|---|---|\n"
        for route, operation in routes:
            answers = ", ".join(status for status, _ in _answers(operation))
            yield f"| `{_shortened(route)}` | {operation['summary']} | {answers} |\n"
        for route, operation in routes:
            for content in operation.get("requestBody", {}).get("content", {}).values():
                yield f"\nBody of `{_shortened(route)}`:\n\n| field | type | |\n|---|---|---|\n"
                yield from _fields(content["schema"], document)


def _shortened(route: str) -> str:
    return route.replace(WORKSPACE, "$W").replace(GROUP, "$G")


def main() -> None:
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
