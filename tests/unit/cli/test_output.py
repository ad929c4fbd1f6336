from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

import safelight
from safelight.cli.main import main
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


def test_a_letter_that_a_terminal_lacks_is_written_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    monkeypatch.setattr(sys, "argv", ["safelight", "--version"])

    with pytest.raises(SystemExit):
        main()
    sys.stdout.write("é狐")
    sys.stdout.flush()

    assert raw.getvalue().endswith(b"\xe9\\u72d0")


def test_a_list_in_a_narrow_terminal_loses_no_letter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    url = "https://127.0.0.1:8000/endpoints/flux/score"

    print_list([{"name": "flux", "scoring_uri": url}], ("name", "scoring_uri"), OutputFormat.TABLE)

    _, *rows = capsys.readouterr().out.splitlines()
    assert "".join(row.removeprefix("flux").strip() for row in rows) == url


def test_what_a_user_reads_is_what_was_meant_and_no_emoji(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_one({"uri": "azureml:cat:1", "path": "/models/:x:/[bold]"}, OutputFormat.TABLE)
    print_list([{"name": ":fire:"}], ("name",), OutputFormat.TABLE)
    shown = capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["safelight", "model", "show", "/no/azureml:cat:1\n/:x:"])
    with pytest.raises(SystemExit):
        main()

    for each in ("azureml:cat:1", "/models/:x:/[bold]", ":fire:"):
        assert each in shown
    said = capsys.readouterr().err
    assert "/no/azureml:cat:1" in said
    assert "/:x:" in said
    assert len(said.splitlines()) == 1


def test_no_console_of_ours_makes_emoji_of_names() -> None:
    source = Path(safelight.__file__).parent

    consoles = [line for path in source.rglob("*.py") for line in path.read_text().splitlines() if " Console(" in line]

    assert len(consoles) > 10
    assert not [line for line in consoles if "emoji=False" not in line]


def test_on_windows_it_is_said_in_one_line_where_safelight_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == "error: Safelight runs on Linux and macOS; on Windows, install it inside WSL 2"
