"""How figures are kept, judged and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import rows
from benchmarks.machine import this_machine
from benchmarks.rows import WITH_ROWS, Report, Row, read_report, read_reports, report, worse
from benchmarks.run import BENCHMARKS, ONLY_WHEN_NAMED


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """A report of one ratio with a spread from 2 to 3."""
    monkeypatch.setattr(rows, "FOLDER", tmp_path / "results")
    row = Row.of_rounds("speed", against="a peer", values=[2.0, 2.5, 3.0], at_least=2.0, bar="1")
    report("start", [row], store=True)
    found = read_report("start")
    assert found is not None
    return found


def test_what_is_stored_is_read_as_it_was(stored: Report) -> None:
    (row,) = stored.rows

    assert (row.value, row.low, row.high, row.rounds, row.is_met) == (2.5, 2.0, 3.0, 3, True)
    assert stored.machine == this_machine()
    assert stored.versions["python"]
    assert read_reports() == [stored]


def test_eight_rounds_have_their_middle_half_as_spread() -> None:
    row = Row.of_rounds("speed", against="a peer", values=[1, 2, 3, 4, 5, 6, 7, 100])

    assert row.high is not None
    assert row.low is not None
    assert 1 < row.low < row.high < 100


@pytest.mark.parametrize(
    ("value", "bounds", "is_worse"),
    [
        (1.9, {"at_least": 2.0}, True),
        (9.0, {"at_least": 2.0}, False),
        (9.0, {"at_most": 2.0}, True),
        (1.9, {"at_most": 2.0}, False),
        (1.9, {}, True),
        (2.1, {}, False),
        (None, {"at_least": 2.0}, False),
    ],
)
def test_worse_is_outside_of_the_stored_spread_where_nobody_wants_it(
    stored: Report, value: float | None, bounds: dict[str, float], is_worse: bool
) -> None:
    now = replace(stored, rows=(Row(what="speed", against="a peer", value=value, **bounds),))  # type: ignore[arg-type]

    told = worse(now, stored)
    assert any("WORSE" in line for line in told) is is_worse


def test_rounds_before_the_last_are_kept_and_compared_with_nothing(
    stored: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    report("start", [replace(stored.rows[0], value=0.1)], store=True, is_last=False)
    told_before = capsys.readouterr().out
    kept = read_report("start")
    report("start", [replace(stored.rows[0], value=0.2)], store=True)

    assert kept == stored
    assert "WORSE" not in told_before
    assert "WORSE" in capsys.readouterr().out
    assert [path.name for path in rows.FOLDER.iterdir()] == ["start.json"]


def test_ratios_of_another_machine_are_not_compared(stored: Report) -> None:
    now = replace(
        stored, rows=(replace(stored.rows[0], value=0.1),), machine=replace(stored.machine, features=("none",))
    )

    assert all("not compared" in line for line in worse(now, stored))


def test_a_figure_that_could_not_be_measured_says_so_and_meets_no_bar() -> None:
    row = Row(what="speed", against="a peer", value=None, at_least=1.0, note="no such machine")

    assert row.is_met is None
    assert "not measured" in row.cells()


@pytest.mark.parametrize("name", [*WITH_ROWS, *BENCHMARKS, *ONLY_WHEN_NAMED])
def test_every_benchmark_that_is_named_is_there(name: str) -> None:
    assert find_spec(f"benchmarks.{name}") is not None


def test_every_row_of_the_page_is_stored() -> None:
    table = (rows.FOLDER.parents[1] / "docs" / "performance.md").read_text()

    for path in rows.FOLDER.glob("*.json"):
        assert path.stem in WITH_ROWS
        for row in json.loads(path.read_text())["rows"]:
            assert f"| {row['what']} | {row['against']} |" in table, (
                f"run `python -m benchmarks.pages` after {path.name}"
            )
