"""A file of prompts, one a line: JSON objects with parameters, lines of OpenAI's Batch API, or plain text.

Every line becomes the body of an image request in OpenAI's terms (`api/openai_wire`), which a server takes as it is.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safelight.cli.az.options import at_home
from safelight.errors import InvalidRequest
from safelight.picture import other_names

TEXT_SUFFIXES = (".txt", ".text")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
BATCH_URL = "/v1/images/generations"
_ALIASES = {"steps": "num_inference_steps", "format": "output_format"}
"""What `safelight generate` calls a field, where OpenAI's body has another name."""
MAX_HEADER_CHARACTERS = 1000
_UNREADABLE = "the line is JSON that nobody reads: too deep, or with a number out of all bounds"
_WITHOUT_EFFECT = ("stream", "partial_images", "step_events", "queue_events", "response_format")
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a file in another encoding than UTF-8 begins with, the longer ones first: one begins as another does."""
_OVERRULED = {"size": ("width", "height"), "lora": ("loras",)}
"""Field of a line -> the defaults that it stands against."""

Body = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLine:
    """One line: the body that it asks for, or why it asks for nothing that can be made."""

    number: int
    """In the file, from 1."""
    body: Body | None = None
    custom_id: str | None = None
    """OpenAI's name of the line."""
    error: InvalidRequest | None = None

    @property
    def prompt(self) -> object:
        return None if self.body is None else self.body.get("prompt")


def read_prompt_file(source: str, defaults: Mapping[str, object]) -> list[PromptLine]:
    """The lines of a file, or of standard input (`-`), that are not empty; `defaults` stand in for what they leave out.

    Raises InvalidRequest if the file cannot be read; a line that makes no sense has its own `error`.
    """
    lines = [line.removeprefix(codecs.BOM_UTF8) for line in _in_utf8(source, _read(source)).split(b"\n")]
    is_text = _is_text(source, lines)
    _refuse_table(source, lines, is_text)
    return [_parse(number, line, defaults, is_text) for number, line in enumerate(lines, 1) if line.strip()]


def _read(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        return at_home(source, "from").read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{source} cannot be read: {error.strerror}", field="from") from None


def _in_utf8(source: str, content: bytes) -> bytes:
    """Decoded by its mark, such as PowerShell puts at the head of what `>` writes. Raises InvalidRequest."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if encoding is not None:
        try:
            content = content.decode(encoding).encode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"{source} begins as {encoding.upper()} and is not (at byte {error.start}); save it as UTF-8",
                field="from",
            ) from None
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise InvalidRequest(
            f"{source} has NUL characters, first in line {line}, as UTF-16 has; save it as UTF-8", field="from"
        )
    return content


def _is_text(source: str, lines: Sequence[bytes]) -> bool:
    """By the file's ending; where that says nothing, JSON begins with a brace."""
    suffix = Path(source).suffix.lower()
    if suffix in TEXT_SUFFIXES or suffix in JSON_SUFFIXES:
        return suffix in TEXT_SUFFIXES
    return not next((line for line in lines if line.strip()), b"{").lstrip().startswith(b"{")


def _refuse_table(source: str, lines: Sequence[bytes], is_text: bool) -> None:
    """Raises InvalidRequest for CSV or TSV, whose lines would be painted, commas and all."""
    first = next((line for line in lines if line.strip()), b"").decode("utf-8", "replace").strip()
    is_table = Path(source).suffix.lower() in TABLE_SUFFIXES
    if is_table or (is_text and _is_header(first)):
        sign = "its name" if is_table else f"its first line, {first[:64]!r},"
        raise InvalidRequest(
            f"{source} is a table (CSV or TSV), as {sign} says; "
            'give a file of prompts, one a line, or of JSON objects such as {"prompt": "a red apple", "seed": 7}',
            field="from",
        )


def _is_header(line: str) -> bool:
    """Names of columns: single words, one of them `prompt`, or known names all."""
    cells = [cell.strip().strip("\"'").strip() for cell in re.split(r"[,;\t|]", line[:MAX_HEADER_CHARACTERS])]
    if not all(re.fullmatch(r"\w[\w -]*", cell) for cell in cells):
        return False
    names = {re.sub(r"[ -]", "_", cell.lower()) for cell in cells}
    are_words = not any(" " in cell for cell in cells)
    return (are_words and bool(names & {"prompt", "prompts"})) or (
        len(cells) > 1 and all(map(other_names.is_known, names))
    )


def _parse(number: int, line: bytes, defaults: Mapping[str, object], is_text: bool) -> PromptLine:
    custom_id = None
    try:
        text = _decode(line).strip()
        fields: Body = {"prompt": text} if is_text else _parse_object(text)
        if "custom_id" in fields or "body" in fields:
            custom_id, fields = _unpack_batch_line(fields)
        body = _body(fields, defaults)
        _check_writable(body)
        return PromptLine(number=number, custom_id=custom_id, body=body)
    except InvalidRequest as error:
        return PromptLine(number=number, custom_id=custom_id, error=error)


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the line is not UTF-8 (byte {error.start + 1})") from None


def _parse_object(text: str) -> Body:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the line is not JSON: {error.msg} at character {error.colno}") from None
    except (ValueError, RecursionError):
        raise InvalidRequest(_UNREADABLE) from None
    if not isinstance(value, dict):
        raise InvalidRequest('the line must be a JSON object, such as {"prompt": "a red apple"}')
    return value


def _unpack_batch_line(fields: Body) -> tuple[str | None, Body]:
    """custom_id and body of a line as OpenAI's Batch API has them."""
    custom_id, method, url, body = (fields.get(name) for name in ("custom_id", "method", "url", "body"))
    if custom_id is not None and not isinstance(custom_id, str):
        raise InvalidRequest("custom_id must be a string", field="custom_id")
    if method not in (None, "POST") or url not in (None, BATCH_URL):
        raise InvalidRequest(f"only POST {BATCH_URL} is made here, not {method} {str(url)[:64]}", field="url")
    if not isinstance(body, dict):
        raise InvalidRequest("body must be an object with a prompt", field="body")
    return custom_id, body


def _body(fields: Mapping[str, object], defaults: Mapping[str, object]) -> Body:
    renamed: Body = {}
    given_as: dict[str, str] = {}
    for given, value in fields.items():
        name = "output_compression" if given == "quality" and _is_integer(value) else _ALIASES.get(given, given)
        if name in renamed:
            raise InvalidRequest(f"{given_as[name]} and {given} are the same; leave one out", field=given)
        renamed[name], given_as[name] = value, given
    for name in _WITHOUT_EFFECT:
        if renamed.get(name) not in (None, False, 0, "b64_json"):
            raise InvalidRequest(f"{name} has no meaning in a file of prompts; leave it out", field=name)
        renamed.pop(name, None)
    overruled = {name for field, names in _OVERRULED.items() if field in renamed for name in names}
    return {name: value for name, value in defaults.items() if name not in overruled} | renamed


def _check_writable(body: Body) -> None:
    """Whether it can be sent, and written down in the manifest. Raises InvalidRequest."""
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the line has half of a surrogate pair (\\ud800 to \\udfff) in a string") from None
    except (ValueError, RecursionError):
        raise InvalidRequest(_UNREADABLE) from None


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
