"""Where a request stands in a trace, as its client said it."""

from __future__ import annotations

import pytest

from safelight.telemetry.names import NO_NAMES, RequestNames, called, current_names, names_from, together

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_traceparent_is_read_and_passed_on() -> None:
    names = names_from("id", {"traceparent": PARENT, "tracestate": "a=1"}.items())

    assert (names.trace_id, names.span_id, names.is_traced) == (TRACE, SPAN, True)
    assert names.trace_headers == (("traceparent", PARENT), ("tracestate", "a=1"))


def test_a_later_version_may_say_more_and_what_is_known_of_it_counts() -> None:
    names = names_from("id", [("traceparent", f"01-{TRACE}-{SPAN}-01-more")])

    assert names.trace_headers == (("traceparent", PARENT),)  # in the version that we know


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nothing",
        PARENT + "-more",
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        PARENT[:-1],
        f"01-{TRACE}-{SPAN}-01more",
        PARENT + "\n",
        "x" * 10_000,
    ],
)
def test_what_is_no_traceparent_is_ignored_and_its_tracestate_with_it(traceparent: str) -> None:
    assert names_from("id", {"traceparent": traceparent, "tracestate": "a=1"}.items()) == RequestNames("id")


def test_a_tracestate_that_is_too_long_is_dropped_and_the_trace_goes_on() -> None:
    names = names_from("id", {"traceparent": PARENT, "tracestate": "a" * 513}.items())

    assert (names.trace_id, names.tracestate) == (TRACE, "")


def test_of_a_batch_every_request_is_named_and_no_trace_is_claimed_for_all() -> None:
    first, second = names_from("a", {"traceparent": PARENT}), RequestNames("b")

    assert together([first, first]) == first
    assert together([first, second, NO_NAMES]) == RequestNames("a,b")


def test_names_are_those_of_the_block() -> None:
    with called(RequestNames("a")):
        assert current_names().request_id == "a"
    assert current_names() == NO_NAMES


def test_a_tracestate_of_several_lines_is_one_and_of_several_parents_none_is_believed() -> None:
    lines = [("tracestate", "a=1"), ("traceparent", PARENT), ("tracestate", ""), ("tracestate", "b=2")]

    assert names_from("id", lines).tracestate == "a=1,b=2"
    assert names_from("id", [*lines, ("traceparent", PARENT)]) == RequestNames("id")
