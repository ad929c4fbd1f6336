"""Prompt files as other programs write them: in other encodings, and tables that are no prompts."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from safelight.cli.pictures.prompt_file import read_prompt_file
from safelight.errors import InvalidRequest

TEXT = "a red fox\r\n\r\na café 狐\r\n"
JSON = '{"prompt": "a red fox"}\r\n\r\n{"prompt": "a café 狐", "seed": 7}\r\n'
MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


def write(folder: Path, content: bytes, name: str = "prompts.txt") -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def refusal(source: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read_prompt_file(source, {})
    return caught.value.message


@pytest.mark.parametrize(("name", "text"), [("it.txt", TEXT), ("it", TEXT), ("it.jsonl", JSON), ("it", JSON)])
@pytest.mark.parametrize("encoding", MARKS)
def test_a_file_is_decoded_by_its_mark(tmp_path: Path, encoding: str, name: str, text: str) -> None:
    lines = read_prompt_file(write(tmp_path, MARKS[encoding] + text.encode(encoding), name), {})

    assert [(line.number, line.prompt, line.error) for line in lines] == [
        (1, "a red fox", None),
        (3, "a café 狐", None),
    ]


def test_files_with_marks_that_were_put_together_are_read(tmp_path: Path) -> None:
    content = codecs.BOM_UTF8 + b"a fox\n" + codecs.BOM_UTF8 + b"a dog\n"

    assert [line.prompt for line in read_prompt_file(write(tmp_path, content), {})] == ["a fox", "a dog"]


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32-le"),
        b"a fox\n" * 1000 + "a dog\n".encode("utf-16-le"),
        codecs.BOM_UTF8 + TEXT.encode("utf-16-le"),
    ],
    ids=["little endian", "big endian", "32 bits", "put behind UTF-8", "with another's mark"],
)
def test_utf_16_without_its_mark_is_refused_whole(tmp_path: Path, content: bytes) -> None:
    assert "NUL characters, first in line" in refusal(write(tmp_path, content))


@pytest.mark.parametrize(
    "tail", [b"a", b"\x00\xd8", b"\x00\xdc\x00\xd8"], ids=["half a letter", "half a pair", "turned"]
)
def test_utf_16_that_is_broken_is_refused_whole(tmp_path: Path, tail: bytes) -> None:
    message = refusal(write(tmp_path, codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le") + tail))

    assert "begins as UTF-16 and is not (at byte " in message


def test_utf_8_with_the_mark_of_utf_16_is_refused_whole(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, codecs.BOM_UTF16_LE + b"a fox\n" + "\U0001f98a".encode() * 3 + b"\n"))

    assert "save it as UTF-8" in message


@pytest.mark.parametrize(
    "header",
    [
        "prompt,seed",
        "prompt;seed;width",
        "prompt\tnegative_prompt\tseed",
        '"prompt","seed"',
        "id, Prompt, artist",
        "prompt",
        "PROMPT",
        "text,seed",
        "Seed,Negative Prompt,Steps",
        "caption\tcfg_scale",
    ],
)
@pytest.mark.parametrize("mark", ["utf-8", "utf-16-le"])
def test_the_header_of_a_table_is_refused_as_such(tmp_path: Path, header: str, mark: str) -> None:
    content = MARKS[mark] + f"\r\n{header}\r\na fox,7,9\r\n".encode(mark)

    assert "is a table (CSV or TSV), as its first line, " in refusal(write(tmp_path, content))
    assert "is a table (CSV or TSV), as its first line, " in refusal(write(tmp_path, content, "without an ending"))


@pytest.mark.parametrize("name", ["prompts.csv", "prompts.TSV"])
def test_a_table_by_its_name_is_refused_whatever_stands_in_it(tmp_path: Path, name: str) -> None:
    assert "is a table (CSV or TSV), as its name says" in refusal(write(tmp_path, b"a fox,7\n", name))


@pytest.mark.parametrize(
    "line",
    ["a fox, night, prompt", "a prompt writer", "fox,night", "a fox", "seed", "red; seed pods", "prompt!", "a | b"],
)
def test_a_prompt_with_commas_is_no_header(tmp_path: Path, line: str) -> None:
    (only,) = read_prompt_file(write(tmp_path, f"{line}\n".encode()), {})

    assert (only.prompt, only.error) == (line, None)


def test_a_bad_letter_in_utf_8_is_the_error_of_its_line(tmp_path: Path) -> None:
    first, second = read_prompt_file(write(tmp_path, "caf\xe9\n".encode("latin-1") + b"a fox\n"), {})

    assert first.error is not None
    assert "not UTF-8 (byte 4)" in first.error.message
    assert second.prompt == "a fox"
