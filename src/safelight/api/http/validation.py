"""From pydantic's verdict on a body to one InvalidRequest: the field, what was sent, and what would be right."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from safelight.api.http.bodies.strict_json import parse_json
from safelight.errors import InvalidRequest, MissingParameter, UnknownParameter, WrongType
from safelight.picture import other_names

Model = TypeVar("Model", bound=BaseModel)
_SECRETS = frozenset({"credentials", "keys", "keyValue"})
"""Fields whose values no error repeats."""
MAX_PROBLEMS = 4
"""Of a body with more, the first ones are described."""
MAX_FIELD_CHARACTERS = 256


class WireModel(BaseModel):
    """A body as it comes: no field but the declared ones, and no conversion between JSON types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _without_zero_fraction(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_without_zero_fraction)]
"""JSON has one kind of number: 4.0 is the integer 4. `true` and "4" are not."""
Number = Annotated[float, Field(allow_inf_nan=False)]


def validate(model: type[Model], body: object) -> Model:
    """The body as `model`. Raises InvalidRequest or one of its kinds."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _invalid_request(error.errors(include_url=False), model) from None


def from_text(model: type[BaseModel], name: str, text: str) -> object:
    """The value of a field that came as text, in a form or a URL: JSON, unless the field is a text itself."""
    if name not in model.model_fields or _is_text(model.model_fields[name].annotation):
        return text
    try:
        return parse_json(text.encode())
    except InvalidRequest:
        return text


def _is_text(annotation: object) -> bool:
    return any(each is str or get_origin(each) is Literal for each in get_args(annotation) or (annotation,))


def _invalid_request(problems: list[ErrorDetails], model: type[BaseModel]) -> InvalidRequest:
    first = problems[0]
    path = _short(".".join(str(part) for part in first["loc"]), MAX_FIELD_CHARACTERS)
    message = "; ".join(_describe(problem, model) for problem in problems[:MAX_PROBLEMS])
    if len(problems) > MAX_PROBLEMS:
        message = f"{len(problems)} problems, of which the first {MAX_PROBLEMS} are: {message}"
    kind = first["type"]
    if kind == "missing":
        return MissingParameter(message, field=path)
    if kind == "extra_forbidden":
        return UnknownParameter(message, field=path)
    if kind.endswith("_type"):
        return WrongType(message, field=path)
    return InvalidRequest(message, field=path)


def _describe(problem: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(_short(str(part)) for part in problem["loc"]) or "the body"
    context: Mapping[str, object] = problem.get("ctx", {})
    match problem["type"]:
        case kind if kind in _PLAIN:
            return f"{path} {_PLAIN[kind]}"
        case "extra_forbidden":
            return unknown(path, str(problem["loc"][-1]), _fields_at(model, problem["loc"][:-1]))
        case "too_long":
            return f"{path} has {context['actual_length']} items; at most {context['max_length']} are read"
        case "literal_error":
            return f"{path} must be one of {context['expected']}, not {_sent(problem)}"
        case kind if kind in _JSON_TYPES:
            return f"{path} must be {_JSON_TYPES[kind]}, not {_sent(problem)}"
        case _:
            return f"{path}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, not {_sent(problem)}"


_PLAIN = {"missing": "is missing", "finite_number": "must be a finite number"}
_JSON_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
}


def unknown(path: str, name: str, accepted: Collection[str]) -> str:
    """What is said of a parameter that a dialect does not have."""
    return f"unknown parameter {path!r}{other_names.hint(name, accepted)}; accepted are: {', '.join(accepted)}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if isinstance(part, str):  # a number is a place in a list
            model = next(_models_in(_by_wire_name(model)[part]))
    return list(_by_wire_name(model))


def _by_wire_name(model: type[BaseModel]) -> dict[str, object]:
    """The fields' types, by the names that a body has them under."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)


def _sent(problem: ErrorDetails) -> str:
    return "what was sent" if _SECRETS & set(problem["loc"]) else _show(problem["input"])


def _show(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _short(repr(value[:64] if isinstance(value, str) else value))


def _short(text: str, limit: int = 64) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
