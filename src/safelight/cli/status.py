"""`safelight status`: what a server is doing, in one screen."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.cli.az.options import DataDir, Output
from safelight.cli.output import JsonObject, OutputFormat, format_of, print_one, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

INTERVAL_S = 1.0
"""Between two looks, of which the pictures a second are the difference."""
COLUMNS = ("endpoint", "deployment", "traffic", "model", "replicas", "where", "running", "queued", "pictures/s")
_SHOWN_ELSEWHERE = ("name", "state", "pid")

Deployments = dict[tuple[str | None, str | None], JsonObject]


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl+C.")] = False,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Show what the server is doing: endpoints, deployments, replicas, queue, pictures a second."""
    from safelight.cli.arm import Arm

    arm = Arm(data_dir)
    before, looked_at = arm.get("/status"), time.monotonic()
    if format_of(output) is not OutputFormat.TABLE and not watch:
        print_one(before, output)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        is_first = True
        while is_first or watch:
            time.sleep(INTERVAL_S)
            now, seconds = arm.get("/status"), time.monotonic() - looked_at
            live.update(screen(now, _by_name(before), seconds), refresh=True)
            before, looked_at, is_first = now, looked_at + seconds, False


def screen(now: JsonObject, before: Deployments, seconds: float) -> RenderableType:
    """The table of a status; `before` is that of so many seconds ago."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, title=Text(_headline(now)), title_justify="left", title_style="")
    for column in COLUMNS:
        table.add_column(
            column, justify="right" if column in ("traffic", "running", "queued", "pictures/s") else "left"
        )
    for key, each in _by_name(now).items():
        made = each["pictures"] - before.get(key, each)["pictures"]
        table.add_row(*(Text(printable(cell)) for cell in _cells(each, max(0, made) / seconds)))
    return table


def _headline(status: JsonObject) -> str:
    gateway = status["gateway"]
    others = "" if gateway["gateways"] is None else f", one of {gateway['gateways']} gateways"
    role = "" if gateway["role"] == "alone" else f"{gateway['role']}{others}; what follows is this one's. "
    return f"{role}{len(status['endpoints'])} endpoint(s)"


def _cells(deployment: JsonObject, pictures_a_second: float) -> list[str]:
    replicas = deployment["replicas"]
    states = Counter(each["state"] for each in replicas)
    places = Counter(
        " ".join(str(value) for key, value in each.items() if key not in _SHOWN_ELSEWHERE) for each in replicas
    )
    return [
        deployment["endpoint"] or "(the server's own)",
        deployment["name"] or "",
        "" if deployment["traffic"] is None else f"{deployment['traffic']}%",
        deployment["model"] or "",
        ", ".join(f"{count} {state}" for state, count in states.items()) or "not ready here yet",
        ", ".join(f"{place} ({count})" for place, count in places.items() if place),
        str(deployment["running"]),
        str(deployment["queued"]),
        f"{pictures_a_second:.1f}",
    ]


def _by_name(status: JsonObject) -> Deployments:
    return {(each["endpoint"], each["name"]): each for each in status["deployments"]}
