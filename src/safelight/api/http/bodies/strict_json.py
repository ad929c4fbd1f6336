"""JSON from outside: RFC 8259 to the letter, within limits that keep its cost in step with its length.

The event loop goes on meanwhile: what is long has a thread, and none of its steps keeps the interpreter to itself for
long. Most of a long body is images in base64, which are cheap; what is dear are many values, so they are limited.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from safelight.errors import InvalidRequest

MAX_MARKS = 65_536
"""Commas and opening brackets, as there are hardly more values; two prompts of nothing but commas fit."""
MAX_NAMES = 256
"""Of one object."""
MAX_DIGITS = 4000
"""Of an integer; Python's own limit is a little above, and holds for sums too."""
LONG_BYTES = 16_384
"""What is longer is parsed in a thread; shorter, it takes less than the thread would."""
PIECE_BYTES = 1024 * 1024

P = ParamSpec("P")
T = TypeVar("T")


async def parse_json_object(content: bytes) -> dict[str, object]:
    """The object that the text is. Raises InvalidRequest."""
    value = await in_thread_if_long(len(content), parse_json, content)
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object, such as {...}")
    return value


async def in_thread_if_long(num_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work` on so many bytes. What is short waits for nobody else's threads."""
    if num_bytes <= LONG_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def parse_json(content: bytes) -> object:
    """The value of a text: no NaN, no name twice, no half of a surrogate pair. Raises InvalidRequest."""
    if not content or content.isspace():
        raise InvalidRequest("the body is empty; send a JSON object")
    _check_number_of_values(content)
    try:
        value: object = json.loads(
            content.decode("utf-8-sig"),
            parse_constant=_refuse_constant,
            parse_int=_integer,
            object_pairs_hook=_without_duplicates,
        )
        if b"\\u" in content:
            _check_text(value)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 (at byte {error.start})") from None
    except UnicodeEncodeError:
        raise InvalidRequest("the body has half of a surrogate pair (\\ud800 to \\udfff) in a string") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    return value


def _check_number_of_values(content: bytes) -> None:
    num_marks = 0
    for start in range(0, len(content), PIECE_BYTES):
        num_marks += sum(content.count(mark, start, start + PIECE_BYTES) for mark in b",[{")
        if num_marks > MAX_MARKS:
            raise InvalidRequest(f"the body has more than {MAX_MARKS} commas and opening brackets; send less")


def _check_text(value: object) -> None:
    """Raises UnicodeEncodeError."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text if not text.isascii():
                text.encode()
            case list() as items:
                pending += items
            case dict() as items:
                pending += items.keys()
                pending += items.values()


def _refuse_constant(name: str) -> None:
    raise InvalidRequest(f"the body is not JSON: {name} is not a number of JSON's")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise InvalidRequest("the body has an integer of thousands of digits")
    return int(text)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MAX_NAMES:
        raise InvalidRequest(f"the body has an object of {len(pairs)} names; at most {MAX_NAMES} are read")
    value: dict[str, object] = {}
    for name, each in pairs:
        if name in value:
            raise InvalidRequest(f"{name[:64]!r} is given more than once", field=name[:64])
        value[name] = each
    return value
