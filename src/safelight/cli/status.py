"""`safelight status`: what a server is doing, in one screen, and in lines where there is none."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.cli.az.options import DataDir
from safelight.cli.output import JsonObject, printable
from safelight.errors import SafelightError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

INTERVAL_S = 1.0
"""Between two looks, of which the pictures a second are the difference."""
WINDOW = 60
"""Looks that `--watch` keeps: its rates and its p95 are those of the last minute."""
COLUMNS = ("deployment", "traffic", "model", "replicas", "where", "restarts", "running", "queued", "pictures/s", "p95")
_IN_OTHER_COLUMNS = ("name", "state", "pid", "detail", "plan", "restarts")

Look = tuple[float, JsonObject]
"""When, on a clock that only goes on, and what was told."""


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl+C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all that the server tells, as one JSON object.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(help="URL of a server elsewhere: what it tells without the administrator's token, with its key."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Show what the server is doing: endpoints, deployments, replicas, queue, pictures a second.

    The server's key is read from SAFELIGHT_API_KEY or SAFELIGHT_API_KEY_FILE.
    """
    import json

    from rich.console import Console

    from safelight.cli.status_source import find_source

    read = find_source(data_dir, server)
    looks: deque[Look] = deque([(time.monotonic(), read())], maxlen=WINDOW)
    console = Console(emoji=False, highlight=False, soft_wrap=not watch)  # what is drawn anew has to know its lines
    if as_json:
        typer.echo(json.dumps(looks[-1][1]))
    elif not watch:
        time.sleep(INTERVAL_S)
        looks.append((time.monotonic(), read()))
        console.print(screen(looks, console.width)) if console.is_terminal else typer.echo("\n".join(lines(looks)))
    elif console.is_terminal:
        _watch(console, looks, read)
    else:
        for problem in _look_again(looks, read):
            typer.echo("\n".join(lines(looks)) if problem is None else problem)


def _look_again(looks: deque[Look], read: Callable[[], JsonObject]) -> Iterator[str | None]:
    """A look each `INTERVAL_S`, for ever: None, or why there was none; a server is watched over a restart too."""
    was_away = False
    while True:
        time.sleep(INTERVAL_S)
        try:
            told = read()
        except SafelightError as error:
            was_away = True
            yield error.message
            continue
        if was_away:
            looks.clear()  # what has started again counts from nothing
            was_away = False
        looks.append((time.monotonic(), told))
        yield None


def _watch(console: Console, looks: deque[Look], read: Callable[[], JsonObject]) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(screen(looks, console.width), console=console, auto_refresh=False, screen=True) as live:
        for problem in _look_again(looks, read):
            now = screen(looks, console.width)
            last = [] if problem is None else [Text(f"{printable(problem)}; what was told last:", style="bold red")]
            live.update(Group(*last, now), refresh=True)


def screen(looks: Sequence[Look], width: int) -> RenderableType:
    """A table of the newest look if it is narrower than `width`, and below it what each replica has to say."""
    from rich.console import Group
    from rich.text import Text

    table = [[printable(cell) for cell in row] for row in rows(looks)]
    head, told = (
        Text(printable(headline(looks)), style="bold"),
        [Text(printable(line)) for line in remarks(looks[-1][1])],
    )
    if _width_of(table) > width:
        return Group(head, *(Text(_in_words(row)) for row in table), *told)
    return Group(head, _as_table(table), *told)


def _as_table(cells: Sequence[Sequence[str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        is_number = column not in ("deployment", "model", "replicas", "where")
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _width_of(table: Sequence[Sequence[str]]) -> int:
    """Where it breaks between words only, with a space between columns."""
    columns = zip(COLUMNS, *table, strict=True)
    return sum(1 + max(len(word) for cell in column for word in cell.split(" ")) for column in columns)


def _in_words(row: Sequence[str]) -> str:
    """For a terminal that is too narrow for a table."""
    name, *cells = row
    return f"{name}: " + ", ".join(
        f"{column} {cell}" for column, cell in zip(COLUMNS[1:], cells, strict=True) if cell not in ("", "-")
    )


def lines(looks: Sequence[Look]) -> list[str]:
    """As `screen`, for programs that read lines: one for each deployment, of `name=value`."""
    told = [
        " ".join(
            f"{name}={cell!r}" if " " in cell else f"{name}={cell or '-'}"
            for name, cell in zip(COLUMNS, row, strict=True)
        )
        for row in rows(looks)
    ]
    return [printable(line) for line in (headline(looks), *told, *remarks(looks[-1][1]))]


def headline(looks: Sequence[Look]) -> str:
    """All of it in one line."""
    deployments = looks[-1][1]["deployments"]
    replicas = [replica["state"] for each in deployments for replica in each["replicas"]]
    made = sum(_pictures_a_second(looks, _place(each)) for each in deployments)
    running, queued = (sum(each[name] for each in deployments) for name in ("running", "queued"))
    gateway = looks[-1][1].get("gateway") or {"role": "alone"}
    others = f", one of {gateway['gateways']} gateways" if gateway.get("gateways") else ""
    role = "" if gateway["role"] == "alone" else f"{gateway['role']}{others}; what follows is this one's. "
    return (
        f"{role}{len(looks[-1][1]['endpoints'])} endpoint(s), "
        f"{replicas.count('ready')} of {len(replicas)} replica(s) ready, "
        f"{running} running, {queued} queued, {made:.1f} pictures/s"
    )


def rows(looks: Sequence[Look]) -> list[list[str]]:
    """The cells of each deployment."""
    return [_cells(each, looks) for each in looks[-1][1]["deployments"]]


def remarks(now: JsonObject) -> list[str]:
    """Why replicas are not as they should be, and how each model lies in memory."""
    return [
        f"{_name(each)}, {replica.get('name', 'replica')}: {replica[word]}"
        for each in now["deployments"]
        for replica in each["replicas"]
        for word in ("detail", "plan")
        if replica.get(word)
    ]


def _cells(deployment: JsonObject, looks: Sequence[Look]) -> list[str]:
    replicas, place = deployment["replicas"], _place(deployment)
    states = Counter(str(each["state"]) for each in replicas)
    return [
        _name(deployment),
        "" if deployment["traffic"] is None else f"{deployment['traffic']}%",
        deployment["model"] or "",
        ", ".join(f"{count} {state}" for state, count in states.items()) or _state(deployment),
        ", ".join(_whereabouts(each) for each in replicas if _whereabouts(each)),
        str(sum(each.get("restarts", 0) for each in replicas)),
        str(deployment["running"]),
        str(deployment["queued"]),
        f"{_pictures_a_second(looks, place):.1f}",
        _p95(looks, place),
    ]


def _state(deployment: JsonObject) -> str:
    return "ready" if deployment["ready"] else "not ready"


def _whereabouts(replica: JsonObject) -> str:
    """On a cluster the node; else the process."""
    elsewhere = [f"{key} {value}" for key, value in replica.items() if key not in _IN_OTHER_COLUMNS]
    return " ".join(elsewhere) or ("" if replica.get("pid") is None else f"pid {replica['pid']}")


def _name(deployment: JsonObject) -> str:
    return f"{deployment['endpoint']}/{deployment['name']}" if deployment["endpoint"] else "(the server's own)"


def _place(deployment: JsonObject) -> tuple[str | None, str | None]:
    return deployment["endpoint"], deployment["name"]


def _at(look: Look, place: tuple[str | None, str | None]) -> JsonObject | None:
    return next((each for each in look[1]["deployments"] if _place(each) == place), None)


def _pictures_a_second(looks: Sequence[Look], place: tuple[str | None, str | None]) -> float:
    """Over all looks, from the first that knows of the deployment; a replacement counts from nothing."""
    known = [(at, told["pictures"]) for at, status in looks if (told := _at((at, status), place)) is not None]
    seconds = known[-1][0] - known[0][0]
    return max(0, known[-1][1] - known[0][1]) / seconds if seconds > 0 else 0.0


def _p95(looks: Sequence[Look], place: tuple[str | None, str | None]) -> str:
    """Of the answers between the looks, or of all there ever were if there was none: the bound of a bucket."""
    first, last = _at(looks[0], place), _at(looks[-1], place)
    now = {} if last is None else last["latency"]
    before = {} if first is None else first["latency"]
    counts = {float(le): count - before.get(le, 0.0) for le, count in now.items()}
    if not any(counts.values()):
        counts = {float(le): count for le, count in now.items()}
    number = max(counts.values(), default=0.0)
    bound = next((le for le in sorted(counts) if number and counts[le] >= 0.95 * number), None)
    if bound is None:
        return "-"
    return f"> {sorted(counts)[-2]:g} s" if bound == float("inf") else f"<= {bound:g} s"
