"""From samples to figures, and from figures to charts."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from safelight.cli.bench.chart import Chart, draw, ticks
from safelight.cli.bench.load import Load, Run, Sample
from safelight.cli.bench.mix import Shape
from safelight.cli.bench.plot import plot_run
from safelight.cli.bench.summary import MAX_MESSAGES, Summary, percentile, ratios, summarize
from safelight.cli.bench.target import parse_target, problem

SMALL, LARGE = Shape("small"), Shape("large")
TARGET = parse_target("http://127.0.0.1:9/")


def sample(
    due_at: float, latency_s: float, *, shape: Shape = SMALL, error: str | None = None, said: str = ""
) -> Sample:
    return Sample(shape, due_at, due_at, due_at + latency_s, error, said)


def run_of(*samples: Sample, counts_from: float = 10.0, counts_to: float = 20.0) -> Run:
    return Run(TARGET, Load(), counts_from, counts_to, list(samples))


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(each) for each in range(1, 101)]

    assert [percentile(values, percent) for percent in (0, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert [percentile([3.0], percent) for percent in (0, 50, 100)] == [3, 3, 3]
    assert percentile([1.0, 2.0], 99) == 2


def test_pictures_count_where_they_end_and_latencies_where_they_were_due() -> None:
    found = summarize([
        run_of(
            sample(9.0, 2.0),  # due before it counted, done while it did
            sample(12.0, 1.0),
            sample(19.0, 5.0, shape=LARGE),  # due while it counted, done after
            sample(13.0, 0.1, error="500", said="oh"),
            sample(3.0, 0.1, error="500", said="before it counted"),
        )
    ])  # fmt: skip

    assert (found.pictures, found.errors, found.pictures_per_second) == (2, 1, 0.2)
    assert found.latency_s is not None
    assert (found.latency_s.p50, found.latency_s.max) == (1.0, 5.0)
    assert [(each.shape, each.pictures, each.errors) for each in found.shapes] == [("large", 1, 0), ("small", 1, 1)]
    assert [(each.status, each.message, each.count) for each in found.error_kinds] == [("500", "oh", 1)]


def test_a_server_that_says_something_new_each_time_fills_no_table() -> None:
    samples = [sample(11.0, 0.1, error="500", said=f"request {index} failed") for index in range(5_000)]
    found = summarize([run_of(*samples)])

    assert len(found.error_kinds) == MAX_MESSAGES + 1
    assert sum(each.count for each in found.error_kinds) == found.errors == 5_000


def test_ratios_are_of_rounds_and_a_round_without_pictures_has_none() -> None:
    def made(latency_s: float, count: int) -> Summary:
        return summarize([run_of(*(sample(11.0, latency_s) for _ in range(count)))])

    found = {
        each.what: each
        for each in ratios([(made(1, 4), made(2, 2)), (made(1, 6), made(3, 2)), (made(1, 1), made(0, 0))])
    }

    throughput = found["pictures a second"]
    assert (throughput.low, throughput.median, throughput.high) == pytest.approx((2.0, 2.5, 3.0))
    assert throughput.rounds == 2
    assert (found["p50"].low, found["p50"].high) == (pytest.approx(1 / 3), 0.5)


def test_a_round_that_was_cut_off_or_in_which_either_server_made_no_picture_has_no_ratio() -> None:
    def made(count: int, *, is_stopped: bool = False) -> Summary:
        run = run_of(*(sample(11.0, 1.0) for _ in range(count)), sample(11.0, 0.1, error="closed"))
        run.is_stopped = is_stopped
        return summarize([run])

    for useless in [(made(0), made(2)), (made(2), made(0)), (made(2, is_stopped=True), made(2)), (made(0), made(0))]:
        assert ratios([useless]) == []
        assert {each.rounds for each in ratios([useless, (made(2), made(2))])} == {1}


def test_a_run_that_is_stopped_before_it_counts_took_no_time() -> None:
    found = summarize([run_of(sample(1.0, 1.0), counts_from=10.0, counts_to=3.0)])

    assert (found.seconds, found.pictures, found.pictures_per_hour) == (0, 0, 0)


def test_two_servers_of_one_address_are_two_in_the_plot() -> None:
    first, second = run_of(sample(11.0, 1.0)), run_of(sample(11.0, 2.0))
    second.target = parse_target("http://127.0.0.1:9/", api_key="of another deployment")

    titles = [each.text for each in ElementTree.fromstring(plot_run([first, second])).iter() if each.text]

    assert [f"Each request to {number}: http://127.0.0.1:9/ (huggingface)" in titles for number in (1, 2)] == [True] * 2


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b'{"data": [{"url": ""}]}', bytes(64), b"RIFF\0\0\0\0WAVE"]
)
@pytest.mark.parametrize("path", ["/v1", "/"])
def test_what_is_no_picture_is_none_however_it_is_written(content: bytes, path: str) -> None:
    target = parse_target(f"http://127.0.0.1:9{path}")

    assert "no picture" in (problem(target, 200, content) or "")
    assert problem(target, 500, content)


@pytest.mark.parametrize("most", [0.0, 1e-9, 0.07, 1, 7.3, 99, 12_345.6, float("inf"), float("nan")])
def test_axes_have_a_few_round_numbers_that_reach_the_most(most: float) -> None:
    found = ticks(most)

    assert 2 <= len(found) <= 10
    assert found[0] == 0
    assert not 0 < most < float("inf") or found[-1] >= most * (1 - 1e-9)


def test_a_chart_is_xml_whatever_its_words_and_whatever_lies_in_it() -> None:
    lines = {"<b>&": [(0.0, 0.0), (1.0, 2.0)], "none": [], "one": [(0.5, 0.5)]}
    drawn = draw(
        [Chart(title='"<', x="&", y="]]>", lines=lines), Chart(title="", x="", y="", lines={}, is_scatter=True)]
    )

    assert len(ElementTree.fromstring(drawn).findall(".//{http://www.w3.org/2000/svg}polyline")) == 3
