"""A plan as a terminal shows it: where each component lies, what each stage takes, and what is slower for it."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from safelight.model.memory.plan import in_gigabytes
from safelight.model.memory.report import PlanReport

_STAGES = {"encode": "reading the prompt", "denoise": "a step", "decode": "decoding"}


def plan_table(report: PlanReport) -> Group:
    components = _table("component", "precision", "where", "size")
    for each in report.components:
        components.add_row(each.name, each.precision, each.place, in_gigabytes(each.num_bytes))
    stages = _table(f"peak at {report.largest_picture}, one picture", "on the device", "")
    for stage, num_bytes in report.peak_bytes.items():
        highest = "highest" if num_bytes == max(report.peak_bytes.values()) else ""
        beside = ", and a picture decoded beside it" if report.decodes_beside and stage != "decode" else ""
        stages.add_row(_STAGES[stage] + beside, in_gigabytes(num_bytes), highest)
    if report.host_bytes:
        stages.add_row("what waits in the machine's memory", in_gigabytes(report.host_bytes), "")
    stages.add_row("rows of that picture in a batch", str(report.largest_batch), "")
    free = f"{report.device}: {in_gigabytes(report.free_bytes)} may be used"
    slower = [Text(f"  {each}") for each in report.slower] or [Text("  nothing")]
    return Group(
        free, "", components, "", stages, "", "slower for it:", *slower, "", Text(f"the same by hand: {report.options}")
    )


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right" if title in ("size", "on the device") else "left")
    return table
