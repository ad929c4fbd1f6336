"""A model's card as a terminal shows it: the facts, and below them its parameters."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

JsonObject = dict[str, Any]


def card_table(card: JsonObject) -> Group:
    """`card` is a ModelCard as a dict."""
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for key, value in _facts(card):
        if value:
            facts.add_row(key, Text(value))
    return Group(facts, "", _parameters(card["parameters"])) if card["parameters"] else Group(facts)


def _facts(card: JsonObject) -> list[tuple[str, str | None]]:
    return [
        ("name", card["name"]),
        ("version", card["version"]),
        ("uri", card["uri"]),
        ("description", card["description"]),
        ("provider", card["provider"]),
        ("license", card["license"]),
        ("last updated", card["last_updated"]),
        ("hub id", card["hub_id"]),
        ("gated", _gate(card)),
        ("folder", card["path"]),
        ("weights", _weights(card["weights_bytes"])),
        ("components", _components(card)),
        ("examples", "\n".join(card["examples"])),
    ]


def _gate(card: JsonObject) -> str:
    if card["is_gated"] is None:
        return "not known before a download"
    return f"yes; request access at {card['access_page']}" if card["is_gated"] else "no"


def _components(card: JsonObject) -> str:
    """Each in a line of its own where its files are here: of what format and dtype, and how large."""
    if not card["parts"]:
        return ", ".join(f"{name} {_count(count)}" for name, count in card["num_parameters"].items())
    return "\n".join(
        f"{name} {_count(part['num_parameters'])}: {part['format']}, {part['dtype']}, {decimal(part['num_bytes'])}"
        for name, part in card["parts"].items()
    )


def _weights(sizes: dict[str, int]) -> str:
    if not sizes:
        return "not known before a download"
    half, full = decimal(sizes["bfloat16"]), decimal(sizes["float32"])
    return f"{half} of memory in bfloat16 or float16, {full} in float32 (weights only)"


def _count(num_parameters: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if num_parameters >= size:
            return f"{num_parameters / size:.1f} {letter}"
    return str(num_parameters)


def _parameters(parameters: list[JsonObject]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("parameter", no_wrap=True)
    for title in ("default", "range", "effect"):
        table.add_column(title)
    for each in parameters:
        table.add_row(each["name"], _default(each), _range(each), each["effect"])
    return table


def _default(parameter: JsonObject) -> str:
    aliases: dict[object, str] = {value: alias for alias, value in parameter["values"].items()}
    default = parameter["default"]
    return "" if default is None else aliases.get(default) or _value(default)


def _range(parameter: JsonObject) -> str:
    if parameter["values"]:
        return ", ".join(parameter["values"])
    if parameter["maximum"] is None:
        return str(parameter["type"])
    text = f"{_value(parameter['minimum'])} to {_value(parameter['maximum'])}"
    return text if parameter["multiple_of"] is None else f"{text}, multiples of {parameter['multiple_of']}"


def _value(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
