"""Writes what is measured into `docs/performance.md`: the table between its marks, and a plot for each stored curve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.rows import HEADINGS, Report, read_reports

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- what `make bench` stored: begin -->\n", "<!-- what `make bench` stored: end -->\n"


def write_performance_page(reports: Iterable[Report]) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + "".join(_table(list(reports))) + END + after, encoding="utf-8")


def _table(reports: list[Report]) -> Iterator[str]:
    yield f"| {' | '.join(HEADINGS)} | command |\n{'|---' * (len(HEADINGS) + 1)}|\n"
    for number, report in enumerate(reports, start=1):
        for row in report.rows:
            cells = " | ".join(each.replace("|", "\\|") for each in row.cells())
            yield f"| {cells} | [{number}](#{number}-{report.name}) |\n"
    for number, report in enumerate(reports, start=1):
        told = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        yield f"\n#### {number} {report.name}\n`{report.command}` on {report.machine}, {report.at}; {told}; "
        yield f"load average at its end {report.load_average:g}.\n"
        yield from (f"- {row.what}: {row.note}\n" for row in report.rows if row.note)


if __name__ == "__main__":
    write_performance_page(read_reports())
