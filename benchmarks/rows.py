"""The common form of a figure: what, against what, how much, how sure. A benchmark that has a bar ends with `report`.

    row = Row.of_rounds("throughput, 16 clients", against="the lock", values=ratios, at_least=1.3, bar="1")
    report("peers", [row], store=options.store)

`report` prints the rows, says what is worse than the stored spread, and with `store` keeps them as
`benchmarks/results/peers.json`, of which `make bench` makes the table of `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.machine import Machine, load_average, this_machine, versions

FOLDER = Path(__file__).parent / "results"
WITH_ROWS = (
    "peers_in_turns",
    "stages",
    "mixed_sizes",
    "batch_cap",
    "precisions",
    "http_cost",
    "on_ray",
    "start",
    "leavers",
    "growth",
    "page_beside",
    "curves",
)
"""They take `--store`: a benchmark that has a bar stands here. The table has them in this order."""
FEWEST_ROUNDS = 3
"""Of fewer there is no spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. With neither `at_least` nor `at_most` it is told, and judged by nobody."""

    what: str
    against: str
    value: float | None
    """The median of the rounds: a ratio where `unit` is x. None: it could not be measured, and `note` says why."""
    low: float | None = None
    high: float | None = None
    """The middle half of the rounds, or all of them where they are fewer than eight."""
    rounds: int = 0
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None
    bar: str = ""
    """Its number among the bars."""
    note: str = ""

    @classmethod
    def of_rounds(
        cls,
        what: str,
        *,
        against: str,
        values: Sequence[float],
        unit: str = "x",
        at_least: float | None = None,
        at_most: float | None = None,
        bar: str = "",
        note: str = "",
    ) -> Row:
        """Of what was measured once a round."""
        if len(values) >= 8:
            low, middle, high = statistics.quantiles(values, n=4)
        else:
            low, middle, high = min(values), statistics.median(values), max(values)
        return cls(
            what=what,
            against=against,
            value=middle,
            low=low,
            high=high,
            rounds=len(values),
            unit=unit,
            at_least=at_least,
            at_most=at_most,
            bar=bar,
            note=note,
        )

    @property
    def is_met(self) -> bool | None:
        """None: there is no bar, or no figure."""
        if self.value is None or (self.at_least is None and self.at_most is None):
            return None
        is_high = self.at_least is None or self.value >= self.at_least
        return is_high and (self.at_most is None or self.value <= self.at_most)

    def is_worse_than(self, stored: Row) -> bool:
        """Outside of the stored spread, on the side where nobody wants it; where there is no bar, on either side."""
        if self.value is None or stored.low is None or stored.high is None or stored.rounds < FEWEST_ROUNDS:
            return False
        is_lower, is_higher = self.value < stored.low, self.value > stored.high
        return (is_lower and self.at_most is None) or (is_higher and self.at_least is None)

    def cells(self) -> tuple[str, ...]:
        """As the columns of the table have them: what, against, value, spread, rounds, bar."""
        met = {True: "met", False: "missed", None: ""}[self.is_met]
        bars = ((">=", self.at_least), ("<=", self.at_most))
        bound = " ".join(f"{sign} {_number(value)}" for sign, value in bars if value is not None)
        spread = f"{_number(self.low)} to {_number(self.high)}" if self.low is not None else ""
        value = "not measured" if self.value is None else f"{_number(self.value)}{'' if self.unit == 'x' else ' '}"
        unit = self.unit if self.value is not None else ""
        name = f"{self.bar}: " if self.bar and bound else ""
        return self.what, self.against, value + unit, spread, str(self.rounds or ""), f"{name}{bound} {met}".strip()


HEADINGS = ("what", "against", "value", "spread", "rounds", "bar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The rows of one run of one benchmark, as they are stored."""

    name: str
    command: str
    at: str
    machine: Machine
    versions: dict[str, str]
    load_average: float
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How a cost grows, for a plot of `docs/performance.md`: a line for each of `lines`."""

    title: str
    x: str
    y: str
    lines: dict[str, tuple[tuple[float, float], ...]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", action="store_true", help="keep the rows for the table of docs/performance.md")


def report(
    name: str, rows: Sequence[Row], *, store: bool = False, curves: Sequence[Curve] = (), is_last: bool = True
) -> None:
    """Print the rows, and what of them is worse than before; with `store` keep them.

    Before the last round they are kept beside what is stored, as `NAME.partial`: a run that is cut off is not lost.
    """
    module = sys.modules["__main__"].__spec__
    arguments = (each for each in sys.argv[1:] if each != "--store")
    done = Report(
        name=name,
        command=" ".join((f"python -m {module.name if module else f'benchmarks.{name}'}", *arguments)),
        at=datetime.now(UTC).strftime("%Y-%m-%d"),
        machine=this_machine(),
        versions=versions(),
        load_average=load_average(),
        rows=tuple(rows),
        curves=tuple(curves),
    )
    print_rows([done])
    for line in worse(done, read_report(name)) if is_last else ():
        print(line)
    if store:
        FOLDER.mkdir(exist_ok=True)
        partial = FOLDER / f"{name}.partial"
        partial.write_text(json.dumps(asdict(done), indent=1, ensure_ascii=False) + "\n")
        if is_last:
            partial.replace(FOLDER / f"{name}.json")


def read_report(name: str) -> Report | None:
    path = FOLDER / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=Report) if path.exists() else None


def read_reports() -> list[Report]:
    """All that are stored, in the order of the table."""
    return [stored for name in WITH_ROWS if (stored := read_report(name)) is not None]


def worse(now: Report, before: Report | None) -> list[str]:
    """A line for each row that is outside of the stored spread; ratios of another kind of machine say nothing here."""
    if before is None:
        return []
    if now.machine != before.machine:
        return [f"what is stored of {now.name} is of {before.machine}: not compared"]
    stored = {(row.what, row.against): row for row in before.rows}
    return [
        f"WORSE than stored: {row.what} against {row.against}: {_number(row.value)} {row.unit}, stored "
        f"{_number(old.value)} ({_number(old.low)} to {_number(old.high)})"
        for row in now.rows
        if (old := stored.get((row.what, row.against))) and row.is_worse_than(old)
    ]


def print_rows(reports: Iterable[Report]) -> None:
    table = Table(*HEADINGS, title_justify="left")
    for each in reports:
        for row in each.rows:
            table.add_row(*row.cells())
        table.add_section()
    Console(width=150, highlight=False).print(table, markup=False)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
