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
