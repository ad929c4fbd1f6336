"""Writes what is stored into `docs/performance.md`, between its marks: table, plots, and how each was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.rows import HEADINGS, Report, read_reports
from safelight.cli.bench.chart import Chart, draw

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PLOTS = PAGE.parent / "plots"


def write_performance_page(reports: Iterable[Report]) -> None:
    """Only what is between marks is written; a plot is a file of `docs/plots`."""
    stored = list(reports)
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in (("table", _table(stored)), ("plots", _plots(stored)), ("runs", _runs(stored))):
        begin, end = f"<!-- {name}: written by make bench -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(begin)
        text = before + begin + "".join(lines) + end + rest.partition(end)[2]
    PAGE.write_text(text, encoding="utf-8")


def _table(reports: Sequence[Report]) -> Iterator[str]:
    yield f"| {' | '.join(HEADINGS)} | command |\n{'|---' * (len(HEADINGS) + 1)}|\n"
    for report in reports:
        for row in report.rows:
            cells = " | ".join(each.replace("|", "\\|") for each in row.cells())
            yield f"| {cells} | [{report.name}](#{report.name}) |\n"


def _plots(reports: Sequence[Report]) -> Iterator[str]:
    for report in reports:
        for number, curve in enumerate(report.curves, start=1):
            PLOTS.mkdir(exist_ok=True)
            path = PLOTS / f"{report.name}-{number}.svg"
            path.write_text(draw([Chart(title=curve.title, x=curve.x, y=curve.y, lines=curve.lines)]))
            yield f"![{curve.title}](plots/{path.name})\n\n"


def _runs(reports: Sequence[Report]) -> Iterator[str]:
    for report in reports:
        told = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        yield f"\n### {report.name}\n`{report.command}` on {report.machine}, {report.at}; {told}; "
        yield f"load average at its end {report.load_average:g}.\n"
        yield from (f"- {row.what}: {row.note}\n" for row in report.rows if row.note)


if __name__ == "__main__":
    write_performance_page(read_reports())
