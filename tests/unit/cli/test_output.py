from __future__ import annotations

import pytest

from safelight.cli.output import OutputFormat, print_list, print_one


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


def test_a_list_in_a_narrow_terminal_loses_no_letter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    url = "https://127.0.0.1:8000/endpoints/flux/score"

    print_list([{"name": "flux", "scoring_uri": url}], ("name", "scoring_uri"), OutputFormat.TABLE)

    _, *rows = capsys.readouterr().out.splitlines()
    assert "".join(row.removeprefix("flux").strip() for row in rows) == url
