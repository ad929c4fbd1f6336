"""`safelight bench` in this process: what it refuses, shows and writes."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from safelight.cli.bench.bench import bench
from safelight.cli.bench.load import Load, Run
from safelight.cli.bench.mix import Shape
from safelight.cli.bench.own_server import stop_server
from safelight.cli.bench.report import print_ratios, print_summary
from safelight.cli.bench.run import Asked, Measurement, NoPicture, _measured, run_rounds
from safelight.cli.bench.summary import ErrorSummary, Latency, Ratio, Summary
from safelight.cli.bench.target import parse_target
from safelight.errors import SafelightError
from tests.bare_server import HANG, bare_server, picture
from tests.waiting import eventually

KEY = "sk-0123456789abcdef"
NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("subject", "given", "remedy"),
    [
        (NOWHERE, {"model": "flux"}, "see --api"),
        (NOWHERE, {"certificate": Path("ca.pem")}, "https://"),
        ("sprite", {"model": "flux"}, "OpenAI's API"),
        ("sprite", {"certificate": Path("ca.pem")}, "https://"),
        ("sprite", {"extra": "[1]"}, "JSON object"),
        ("sprite", {"serve_options": "--data-dir=elsewhere"}, "leave it out"),
        (NOWHERE, {"compare_api_key_env": "PATH"}, "--compare"),
        (NOWHERE, {"compare_api_key_file": Path(__file__)}, "is no key"),
        (NOWHERE, {"compare_api": "openai"}, "--compare"),
        (NOWHERE, {"plot": Path("-")}, "name a file"),
        (NOWHERE, {"json": Path("run"), "plot": Path("./run")}, "name two files"),
        (NOWHERE, {"json": Path("~nobody-of-that-name/run")}, "home of nobody"),
        (NOWHERE, {"api_key_env": KEY}, "the name of a variable"),
        (NOWHERE, {"api_key_file": Path("/dev/zero")}, "is no key"),
        (f"127.0.0.1:9/score?code={KEY}", {}, "http:// or https://"),
        (f"somewhere?code={KEY}", {"api": "openai"}, "--api is for a URL"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_would_have_no_effect_or_makes_no_sense_is_refused_without_a_secret(
    subject: str, given: dict[str, object], remedy: str
) -> None:
    with pytest.raises(SafelightError) as refused:
        bench(subject, **given)  # type: ignore[arg-type]

    assert remedy in refused.value.message
    assert KEY not in refused.value.message


def test_a_time_in_which_nothing_was_due_is_not_called_stopped() -> None:
    with bare_server(picture) as server, pytest.raises(NoPicture, match=r"no request was due .* --duration"):
        bench(server.url, rate=0.001, duration=0.1, warm_up=0)


def test_the_name_of_a_server_is_shown_on_a_terminal_as_it_is() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200)
    load = Load(requests=1, warm_up_s=0)
    with bare_server(picture) as server:
        target = parse_target(f"{server.url}/[red]x[/a]")
        asked = Asked((Shape("any"),), (), 0)
        runs = []
        asyncio.run(
            run_rounds(
                Measurement(first=target, second=None, load=load, asked=asked, rounds=1),
                terminal,
                runs,
                asyncio.Event(),
            )
        )

    assert len(runs[0].counted) == 1
    assert "[red]x[/a]" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_what_was_measured_is_told_even_if_all_is_ended_at_once() -> None:
    told: list[Sequence[Run]] = []

    async def ended() -> None:
        asked = Asked((Shape("any"),), (), 0)
        measurement = Measurement(
            first=parse_target(server.url), second=None, load=Load(warm_up_s=0, requests=9), asked=asked, rounds=1
        )
        task = asyncio.create_task(_measured(measurement, Console(file=io.StringIO()), told.append))
        await asyncio.to_thread(eventually, lambda: len(server.requests) == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with bare_server(lambda number: picture(0) if number < 3 else HANG) as server:
        asyncio.run(ended())

    ((run,),) = told
    assert (len(run.counted), run.num_unfinished, run.is_stopped) == (2, 1, True)


def shown(summary: Summary, *, price_per_hour: float | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    print_summary(console, summary, Load(), price_per_hour)
    lines: list[str] = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return lines


SUMMARY = Summary(
    url="http://a/", api="huggingface", seconds=1.0, pictures=1, errors=0, unfinished=0, pictures_per_second=1.0,
    pictures_per_hour=3_600.0, latency_s=Latency(1.0, 1.0, 1.0, 1.0, 1.0), shapes=(), error_kinds=(),
    told_to_come_back=0, generator_cpu_share=0.0, generator_p99_lateness_s=0.0, is_stopped=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("per_second", "cost", "told"),
    [
        (0.0004, 0.1, {"pictures a second": "0.000400", "pictures an hour": "1.44", "cost of 1,000 pictures": "69.4"}),
        (1.0, 0.1, {"pictures a second": "1.00", "pictures an hour": "3,600", "cost of 1,000 pictures": "0.0278"}),
        (99.99, 2, {"pictures a second": "100", "pictures an hour": "359,964", "cost of 1,000 pictures": "0.00556"}),
        (12_345, 9e9, {"pictures a second": "12,345", "cost of 1,000 pictures": "202,511"}),
    ],
)
def test_a_figure_has_the_digits_that_count(per_second: float, cost: float, told: dict[str, str]) -> None:
    summary = replace(SUMMARY, pictures_per_second=per_second, pictures_per_hour=3_600 * per_second)

    lines = [re.split("  +", line.strip()) for line in shown(summary, price_per_hour=cost)]

    assert all([what, value] in lines for what, value in told.items())


def test_ratios_and_latencies_of_very_different_servers_are_no_zeros() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_ratios(console, [SUMMARY, SUMMARY], [Ratio("p50", 0.00123, 0.001, 1.0, 3)])
    lines = shown(replace(SUMMARY, latency_s=Latency(0.00081, 0.0008, 0.05, 0.5, 12.3456)))

    assert re.search(r"^p50 +0.00123 +0.00100 +1.00 +3", console.file.getvalue(), re.MULTILINE)  # type: ignore[attr-defined]
    assert any(re.match(r"all +0.000810 +0.000800 +0.0500 +0.500 +12.346 ", line) for line in lines)


def test_ways_to_fail_that_are_not_shown_are_counted_on_a_line_of_their_own() -> None:
    kinds = tuple(ErrorSummary("500", f"failure {number}", 1) for number in range(12))
    lines = shown(replace(SUMMARY, error_kinds=kinds, told_to_come_back=1))

    assert "and 2 other ways, which --json tells" in lines


def test_a_server_of_its_own_is_gone_even_if_nobody_waits_for_its_end() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"

    async def give_up() -> int | None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        stopping = asyncio.create_task(stop_server(process))
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        return process.returncode

    assert asyncio.run(give_up()) == -9
