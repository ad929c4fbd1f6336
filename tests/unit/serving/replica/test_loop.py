"""The loop of a replica in this process: a script instead of a gateway, and a clock that only the engine moves."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from safelight.errors import EngineFailure
from safelight.picture.generation import (
    Completed,
    Event,
    Failed,
    Generation,
    GenerationRequest,
    ImageCompleted,
    Preview,
    Step,
)
from safelight.serving.counters import Counters
from safelight.serving.messages import (
    Cancel,
    GatewayMessage,
    Happened,
    ReplicaMessage,
    Stats,
    Submit,
)
from safelight.serving.replica.loop import EncodedImage, ReplicaLoop
from tests.fakes import DEADLINE_S, FakeEngine, FakeEngineOptions, fake_request
from tests.recipes import ORIGIN


class EndOfScript(BaseException):
    """The loop has nothing left to do."""


class ScriptedInbox(queue.Queue[GatewayMessage | EncodedImage]):
    """Raises EndOfScript when the loop would wait for ever: every submitted request was answered or cancelled."""

    num_open = 0

    def get(self, block: bool = True, timeout: float | None = None) -> GatewayMessage | EncodedImage:
        if self.num_open == 0 and self.empty():
            raise EndOfScript
        return super().get(block, timeout=DEADLINE_S)

    def get_nowait(self) -> GatewayMessage | EncodedImage:
        return super().get(block=False)


class Replica:
    """A loop with a fake engine. `log` has the engine's calls, `sent` the loop's messages, both in order."""

    def __init__(
        self,
        *,
        start_s: float = 0,
        step_s: float = 0,
        preview_s: float = 0,
        decode_s: float = 0,
        max_batch_size: int = 8,
        decodes_beside_steps: bool = False,
    ) -> None:
        self.seconds = {"start": start_s, "step": step_s, "preview": preview_s, "decode": decode_s}
        self.now = 0.0
        self.log: list[tuple[str, int]] = []
        self.sent: list[ReplicaMessage] = []
        self.inbox = ScriptedInbox()
        self.after_call: Callable[[str], None] = lambda name: None
        options = FakeEngineOptions(decodes_beside_steps=decodes_beside_steps)
        self.engine = FakeEngine(options=options, on_call=self._on_call)
        self.at_call: dict[int, GatewayMessage] = {}
        """Number of an engine call (from 1) -> the message that comes during it."""
        self.loop = ReplicaLoop(
            self.engine,
            self.inbox,
            self._send,
            max_batch_size=max_batch_size,
            origin=ORIGIN,
            clock=lambda: self.now,
        )

    def run(self, *messages: GatewayMessage) -> None:
        for message in messages:
            self.put(message)
        with pytest.raises(EndOfScript):
            self.loop.run()

    def results(self) -> dict[int, Completed | Failed]:
        return {ticket: event for ticket, event in self.events() if isinstance(event, Completed | Failed)}

    def events(self) -> list[tuple[int, Event]]:
        return [(message.ticket, message.event) for message in self.sent if isinstance(message, Happened)]

    def counters(self) -> Counters:
        return [message.counters for message in self.sent if isinstance(message, Stats)][-1]

    def calls(self) -> list[str]:
        return [name for name, _ in self.log]

    def put(self, message: GatewayMessage) -> None:
        self.inbox.num_open += {Submit: 1, Cancel: -1}.get(type(message), 0)
        self.inbox.put(message)

    def _send(self, message: ReplicaMessage) -> None:
        self.inbox.num_open -= isinstance(message, Happened) and isinstance(message.event, Completed | Failed)
        self.sent.append(message)

    def _on_call(self, name: str, batch: Sequence[Generation]) -> None:
        self.log.append((name, len(batch)))
        self.now += self.seconds[name]
        if len(self.log) in self.at_call:
            self.put(self.at_call[len(self.log)])
        self.after_call(name)


def submit(ticket: int, request: GenerationRequest | None = None, *, age_s: float = 0.0, **values: object) -> Submit:
    return Submit(ticket, request or fake_request(**values), age_s)


def error_of(answer: Completed | Failed) -> Exception:
    assert isinstance(answer, Failed)
    return answer.error


def test_a_request_is_started_stepped_decoded_and_done() -> None:
    replica = Replica()

    replica.run(submit(5, num_inference_steps=2))

    assert replica.calls() == ["start", "step", "step", "decode"]
    steps = [(ticket, event) for ticket, event in replica.events() if isinstance(event, Step)]
    assert steps == [(5, Step(0, 1, 2)), (5, Step(0, 2, 2))]
    assert isinstance(replica.results()[5], Completed)
    assert replica.engine.num_held == 0


def test_a_long_decode_stalls_the_running_batch_by_one_call_at_most() -> None:
    replica = Replica(step_s=1.0, decode_s=10.0)

    replica.run(
        submit(1, num_inference_steps=2, num_images_per_prompt=4), submit(2, num_inference_steps=12, prompt="other")
    )

    calls = "".join({"start": "s", "step": ".", "decode": "D"}[name] for name in replica.calls())
    running = calls[: calls.rindex(".")]
    assert "DD" not in running
    assert running.count("D") == 4


def test_a_long_encode_stalls_the_running_batch_by_one_call_at_most() -> None:
    replica = Replica(start_s=10.0, step_s=1.0)

    replica.run(*(submit(ticket, num_inference_steps=8) for ticket in range(5)))

    assert replica.calls()[:10] == ["start", "step"] * 5


def test_short_stages_fill_the_time_of_one_step() -> None:
    """Otherwise a four-step model could not keep its batch full."""
    replica = Replica(start_s=0.1, step_s=1.0, decode_s=0.1)

    replica.run(*(submit(ticket) for ticket in range(8)))

    assert replica.counters().transformer_calls <= 5
    assert max(replica.counters().batch_sizes) >= 7


def test_images_of_one_request_share_steps_and_count_their_seeds_up() -> None:
    replica = Replica(step_s=1.0)

    replica.run(submit(1, seed=40, num_images_per_prompt=3))

    answer = replica.results()[1]
    assert isinstance(answer, Completed)
    assert [image.seed for image in answer.result.images] == [40, 41, 42]
    assert len({image.content for image in answer.result.images}) == 3
    assert replica.counters().transformer_calls < 3 * 4


def test_each_of_several_streamed_images_is_sent_by_itself() -> None:
    replica = Replica(step_s=1.0)

    replica.run(submit(1, num_images_per_prompt=2, is_streamed=True, warnings=("w",)), submit(2, is_streamed=True))

    answer = replica.results()[1]
    assert isinstance(answer, Completed)
    made = sorted(
        ((ticket, event) for ticket, event in replica.events() if isinstance(event, ImageCompleted)),
        key=lambda each: each[1].image_index,
    )
    assert [(ticket, event.image_index, event.image) for ticket, event in made] == [
        (1, index, image) for index, image in enumerate(answer.result.images)
    ]
    assert (made[0][1].warnings, made[0][1].num_text_tokens) == (("w",), 3)


def test_a_cancelled_request_takes_no_further_step() -> None:
    replica = Replica()
    replica.at_call = {3: Cancel(1)}  # during its second step

    replica.run(submit(1, num_inference_steps=50))

    assert replica.calls() == ["start", "step", "step"]
    assert replica.results() == {}
    assert replica.counters().steps_saved == 48
    assert replica.engine.num_held == 0


def test_a_request_cancelled_during_its_encode_never_steps() -> None:
    replica = Replica()
    replica.at_call = {1: Cancel(1)}

    replica.run(submit(1))

    assert replica.calls() == ["start"]


def test_a_request_cancelled_while_it_waits_is_never_started() -> None:
    replica = Replica()

    replica.run(submit(1), Cancel(1))

    assert replica.calls() == []
    assert replica.counters().steps_saved == 4


def test_cancelling_what_is_done_does_nothing() -> None:
    replica = Replica()
    replica.run(submit(1))
    replica.inbox.num_open += 1

    replica.run(Cancel(1))

    assert list(replica.results()) == [1]


def test_a_request_past_its_timeout_is_dropped_before_the_next_step() -> None:
    replica = Replica(step_s=1.0)

    replica.run(submit(1, num_inference_steps=50, timeout_s=2.5))

    assert replica.calls() == ["start", "step", "step", "step"]
    assert type(error_of(replica.results()[1])).__name__ == "DeadlineExceeded"
    assert replica.counters().steps_saved == 47


def test_the_timeout_counts_from_the_arrival_at_the_gateway() -> None:
    replica = Replica()

    replica.run(submit(1, timeout_s=2.5, age_s=3.0))

    assert replica.calls() == []
    assert type(error_of(replica.results()[1])).__name__ == "DeadlineExceeded"


@pytest.mark.parametrize("word", ["FAIL_START", "FAIL_DECODE"])
def test_a_stage_that_raises_fails_its_request_alone(word: str) -> None:
    replica = Replica()

    replica.run(submit(1, prompt=word), submit(2))

    error = error_of(replica.results()[1])
    assert isinstance(error, EngineFailure)
    assert "RuntimeError" in str(error)
    assert isinstance(replica.results()[2], Completed)
    assert replica.engine.num_held == 0


def test_a_step_without_memory_fails_its_batch_with_what_to_do_and_the_loop_goes_on() -> None:
    replica = Replica(step_s=1.0)

    replica.run(submit(1, num_inference_steps=9), submit(2, prompt="NO_MEMORY"), submit(3, width=128))

    for ticket in (1, 2):
        error = error_of(replica.results()[ticket])
        assert isinstance(error, EngineFailure)
        assert "no memory for a picture of 64x64, in a batch with 1 other;" in str(error)
        assert "a smaller one" in str(error)
        assert "--vae-tiling on or a lower --max-batch-size" in str(error)
    assert isinstance(replica.results()[3], Completed)
    assert replica.engine.num_held == 0


def test_a_step_that_raises_fails_its_batch_and_the_loop_goes_on() -> None:
    replica = Replica()
    replica.at_call = {3: submit(3)}  # comes during the first step

    replica.run(submit(1, prompt="FAIL_STEP", num_inference_steps=9), submit(2, width=128))

    assert isinstance(error_of(replica.results()[1]), EngineFailure)
    assert isinstance(replica.results()[2], Completed)
    assert isinstance(replica.results()[3], Completed)


def test_an_image_that_fails_takes_its_siblings_along_and_nobody_else() -> None:
    replica = Replica(step_s=1.0)
    replica.run(submit(1, prompt="FAIL_ROW", num_images_per_prompt=4), submit(2))

    assert str(error_of(replica.results()[1])) == "step 1 made NaN, as asked"
    assert isinstance(replica.results()[2], Completed)
    assert replica.counters().steps_run <= 4 + 4
    assert replica.engine.num_held == 0


def test_an_image_that_cannot_be_written_fails_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError("encoder error")

    monkeypatch.setattr("safelight.serving.replica.image_files.files.encode", fail)
    replica = Replica()

    replica.run(submit(1))

    assert isinstance(error_of(replica.results()[1]), EngineFailure)


def test_images_too_large_for_a_frame_are_an_error_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safelight.serving.replica.loop.MAX_FRAME_BYTES", 100)
    replica = Replica()

    replica.run(submit(1))

    assert "fewer or smaller" in str(error_of(replica.results()[1]))


def test_the_result_tells_its_timings_and_warnings() -> None:
    replica = Replica(start_s=1.0, step_s=2.0, decode_s=3.0)

    replica.run(submit(1, age_s=0.5, num_inference_steps=2, warnings=("a", "b", "a")))

    answer = replica.results()[1]
    assert isinstance(answer, Completed)
    timings = answer.result.timings
    assert (timings.queue_s, timings.encode_s, timings.denoise_s, timings.decode_s) == (0.5, 1.0, 4.0, 3.0)
    assert timings.total_s == 8.5
    assert answer.result.warnings == ("a", "b")
    assert answer.result.num_text_tokens == 3


def test_what_was_done_is_counted() -> None:
    replica = Replica(start_s=1.0, step_s=2.0)

    replica.run(
        submit(1, num_inference_steps=2), submit(2, num_inference_steps=2, negative_prompt="", true_cfg_scale=2.0)
    )

    counters = replica.counters()
    assert counters.steps_run == 4
    assert sum(rows * count for rows, count in counters.batch_sizes.items()) == 2 + 4
    assert sum(counters.batch_sizes.values()) == counters.transformer_calls == counters.stages["step"].count
    assert (counters.prompt_cache_hits, counters.prompt_cache_misses) == (1, 1)
    assert counters.stages["encode"].seconds == 2.0
    assert (
        counters.stages["queue"].count == counters.stages["decode"].count == counters.stages["image_encode"].count == 2
    )


def test_previews_come_between_the_steps_and_are_numbered() -> None:
    replica = Replica()

    replica.run(submit(1, num_inference_steps=8, num_previews=3))

    assert replica.calls() == ["start", *(["step"] * 2 + ["preview"]) * 3, "step", "step", "decode"]
    previews = [(ticket, event) for ticket, event in replica.events() if isinstance(event, Preview)]
    assert [(ticket, each.image_index, each.index) for ticket, each in previews] == [(1, 0, 0), (1, 0, 1), (1, 0, 2)]


@pytest.mark.parametrize(
    ("steps", "num_previews", "shown"),
    [(4, 3, [1, 2, 3]), (4, 1, [2]), (4, 2, [1, 3]), (2, 3, [1]), (1, 3, []), (50, 3, [12, 25, 38]), (4, 0, [])],
)
def test_previews_are_spaced_over_the_steps_and_never_follow_the_last(
    steps: int, num_previews: int, shown: list[int]
) -> None:
    generation = Generation(request=fake_request(num_previews=num_previews), image_index=0, arrived_at=0.0)
    generation.num_steps = steps
    due = []

    for generation.step_index in range(steps + 1):
        if generation.is_preview_due:
            due.append(generation.step_index)

    assert due == shown


def test_a_long_preview_stalls_the_running_batch_by_one_call_at_most() -> None:
    replica = Replica(step_s=1.0, preview_s=10.0)

    replica.run(submit(1, num_inference_steps=8, num_previews=3, num_images_per_prompt=4))

    calls = "".join({"start": "s", "step": ".", "preview": "P", "decode": "D"}[name] for name in replica.calls())
    assert "PP" not in calls
    assert "P" in calls


def test_a_preview_that_raises_fails_its_request_alone() -> None:
    replica = Replica()

    replica.run(submit(1, prompt="FAIL_PREVIEW", num_previews=1), submit(2, num_previews=1))

    assert isinstance(error_of(replica.results()[1]), EngineFailure)
    assert isinstance(replica.results()[2], Completed)
    assert replica.engine.num_held == 0


def test_a_request_cancelled_during_its_preview_takes_no_further_step() -> None:
    replica = Replica()
    replica.at_call = {4: Cancel(1)}  # its preview, after two steps

    replica.run(submit(1, num_inference_steps=4, num_previews=1))

    assert replica.calls() == ["start", "step", "step", "preview"]
    assert replica.counters().steps_saved == 2
    assert replica.engine.num_held == 0


def test_steps_go_on_while_another_thread_decodes() -> None:
    replica = Replica(decodes_beside_steps=True)
    has_gone_on = threading.Event()

    def decode_slowly(name: str) -> None:
        if name == "decode" and replica.calls().count("decode") == 1:
            assert has_gone_on.wait(DEADLINE_S)
        elif name == "step" and "decode" in replica.calls():
            has_gone_on.set()

    replica.after_call = decode_slowly
    replica.run(submit(1, num_inference_steps=1), submit(2, num_inference_steps=50))

    assert all(isinstance(result, Completed) for result in replica.results().values())
    assert replica.engine.num_held == 0
    assert replica.counters().stages["decode"].count == 2


def test_who_leaves_while_another_thread_decodes_for_him_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica(decodes_beside_steps=True)
    has_left = threading.Event()

    def leave(name: str) -> None:
        if name == "decode" and replica.calls().count("decode") == 1:
            replica.put(submit(3))
            replica.put(Cancel(1))
            assert has_left.wait(DEADLINE_S)
        elif name == "start" and replica.calls().count("start") == 2:
            has_left.set()

    replica.after_call = leave
    replica.run(submit(1))

    assert list(replica.results()) == [3]
    assert isinstance(replica.results()[3], Completed)
    assert replica.engine.num_held == 0
    assert not caplog.records


def test_who_waits_for_nothing_but_the_result_is_told_of_no_step() -> None:
    replica = Replica()

    replica.run(submit(1, num_inference_steps=3, tells_steps=False))

    assert [type(event) for _, event in replica.events()] == [Completed]
