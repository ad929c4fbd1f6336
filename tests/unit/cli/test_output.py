from __future__ import annotations

import pytest

from safelight.cli.output import OutputFormat, print_one


def test_in_a_table_each_of_several_warnings_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_one({"name": "blue", "warnings": ["one [has] no effect", "two"]}, OutputFormat.TABLE)

    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "name      blue",
        "warnings  one [has] no effect",
        "two",
    ]


def test_what_lies_deeper_in_a_strangers_file_moves_no_cursor_either(capsys: pytest.CaptureFixture[str]) -> None:
    print_one({"loras": ({"name": "a\x1b[2J"},), "tags": {"\x1b[1m": "b"}, "list": ["\x1b[3m"]}, OutputFormat.TABLE)

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "name=a\\x1b[2J" in out
