from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from safelight.errors import EngineFailure
from safelight.picture.generation import Generation
from safelight.serving.replica.batcher import StepBatcher
from tests.fakes import fake_request

SMALL, LARGE = 64, 512


def generation(size: int = SMALL, *, steps: int = 4, is_guided: bool = False) -> Generation:
    """As the engine leaves it after `start`."""
    guidance = {"negative_prompt": "grey", "true_cfg_scale": 3.0} if is_guided else {}
    request = fake_request(width=size, height=size, num_inference_steps=steps, **guidance)
    started = Generation(request=request, image_index=0, arrived_at=0.0)
    started.num_steps, started.batch_key = steps, (size, size)
    return started


def take_step(batcher: StepBatcher) -> list[Generation]:
    batch = batcher.next_batch()
    for each in batch:
        each.step_index += 1
    batcher.retire(batch)
    return batch


def test_an_empty_batcher_has_no_batch() -> None:
    assert StepBatcher(max_batch_size=4).next_batch() == []


def test_generations_of_different_length_share_steps() -> None:
    short, long = generation(steps=1), generation(steps=3)
    batcher = StepBatcher(max_batch_size=4)
    batcher.add(short)
    batcher.add(long)

    batches = [take_step(batcher) for _ in range(4)]

    assert batches == [[short, long], [long], [long], []]


def test_a_generation_joins_a_running_batch_at_the_next_step() -> None:
    first, late = generation(), generation()
    batcher = StepBatcher(max_batch_size=4)
    batcher.add(first)
    take_step(batcher)

    batcher.add(late)

    assert take_step(batcher) == [first, late]


def test_sizes_never_share_a_batch() -> None:
    batcher = StepBatcher(max_batch_size=4)
    batcher.add(generation(SMALL))
    batcher.add(generation(LARGE))

    assert len(take_step(batcher)) == 1


def test_a_guided_generation_takes_two_rows() -> None:
    batcher = StepBatcher(max_batch_size=4)
    for _ in range(3):
        batcher.add(generation(is_guided=True))

    assert len(batcher.next_batch()) == 2


def test_a_later_generation_takes_the_row_that_the_next_in_line_does_not_fit_into() -> None:
    first, too_large, fits = generation(is_guided=True), generation(is_guided=True), generation()
    batcher = StepBatcher(max_batch_size=3)
    for each in (first, too_large, fits):
        batcher.add(each)

    assert batcher.next_batch() == [first, fits]


def test_a_generation_that_needs_more_rows_than_the_cap_runs_alone() -> None:
    guided, plain = generation(is_guided=True), generation()
    batcher = StepBatcher(max_batch_size=1)
    batcher.add(guided)
    batcher.add(plain)

    assert take_step(batcher) == [guided]


def test_first_come_first_served_within_a_size() -> None:
    batcher = StepBatcher(max_batch_size=2)
    arrivals = [generation(steps=2) for _ in range(5)]
    for each in arrivals:
        batcher.add(each)

    batches = [take_step(batcher) for _ in range(6)]

    assert batches == [arrivals[:2], arrivals[:2], arrivals[2:4], arrivals[2:4], arrivals[4:], arrivals[4:]]


def test_a_dropped_generation_takes_no_further_step() -> None:
    stays, goes = generation(), generation()
    batcher = StepBatcher(max_batch_size=4)
    batcher.add(stays)
    batcher.add(goes)
    take_step(batcher)

    batcher.drop(goes)
    batcher.drop(goes)

    assert take_step(batcher) == [stays]


def test_a_generation_with_an_error_is_retired_and_the_others_go_on() -> None:
    broken, sound = generation(), generation()
    batcher = StepBatcher(max_batch_size=4)
    batcher.add(broken)
    batcher.add(sound)
    batch = batcher.next_batch()
    broken.error = EngineFailure("NaN")

    assert batcher.retire(batch) == [broken]
    assert batcher.next_batch() == [sound]


def test_sizes_get_equal_shares_of_the_device_in_pixels() -> None:
    batcher = StepBatcher(max_batch_size=1)
    batcher.add(generation(64, steps=10_000))
    batcher.add(generation(128, steps=10_000))

    steps = Counter(take_step(batcher)[0].request.width for _ in range(500))

    assert steps[64] == 4 * steps[128]


def test_a_stream_of_one_size_does_not_starve_another() -> None:
    """The small ones come one at a time, each when the last is done: their lane is new every time."""
    batcher = StepBatcher(max_batch_size=8)
    large = generation(LARGE, steps=4)
    batcher.add(large)

    num_steps = 0
    while not large.is_denoised:
        batcher.add(generation(SMALL, steps=1))
        take_step(batcher)
        num_steps += 1
        assert num_steps <= 4 * (LARGE**2 // SMALL**2 + 2)


def test_a_size_that_was_away_does_not_catch_up_on_missed_turns() -> None:
    batcher = StepBatcher(max_batch_size=1)
    batcher.add(generation(64, steps=10_000))
    for _ in range(1000):
        take_step(batcher)
    batcher.add(generation(80, steps=10_000))

    widths = [take_step(batcher)[0].request.width for _ in range(8)]

    assert 3 <= widths.count(64) <= 5


@settings(deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from([64, 96, 128, 512]), st.integers(1, 6), st.booleans(), st.integers(0, 5)), max_size=30
    ),
    cap=st.integers(1, 9),
)
def test_every_generation_takes_exactly_its_steps(arrivals: list[tuple[int, int, bool, int]], cap: int) -> None:
    """Whatever comes when: nothing is lost, nothing runs twice, and no batch is over the cap or mixes sizes."""
    batcher = StepBatcher(max_batch_size=cap)
    generations = [generation(size, steps=steps, is_guided=guided) for size, steps, guided, _ in arrivals]
    for each, (_, _, _, steps_before) in zip(generations, arrivals, strict=True):
        for _ in range(steps_before):
            check_batch(take_step(batcher), cap)
        batcher.add(each)

    while batch := take_step(batcher):
        check_batch(batch, cap)

    assert all(each.step_index == each.num_steps for each in generations)
    assert len(batcher) == 0


@settings(deadline=None)
@given(sizes=st.lists(st.sampled_from([64, 96, 128, 256]), min_size=1, max_size=60), cap=st.integers(1, 8))
def test_no_size_waits_longer_than_its_fair_share(sizes: list[int], cap: int) -> None:
    """Between two turns of the large one, no other size is given more than the large one costs, and one batch."""
    batcher = StepBatcher(max_batch_size=cap)
    batcher.add(generation(512, steps=10_000))
    take_step(batcher)
    given_since: Counter[int] = Counter()
    for size in sizes * 20:
        batcher.add(generation(size, steps=1))
        batch = take_step(batcher)
        width = batch[0].request.width
        given_since[width] += sum(each.request.width**2 for each in batch)
        if width == 512:
            given_since.clear()
        assert all(pixels <= 512**2 + cap * size**2 for size, pixels in given_since.items())


def check_batch(batch: list[Generation], cap: int) -> None:
    assert len({each.batch_key for each in batch}) <= 1
    assert len(batch) == len(set(batch))
    assert sum(each.num_rows for each in batch) <= cap or len(batch) == 1


class Batching(RuleBasedStateMachine):
    """Arrivals, steps and drops in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher = StepBatcher(max_batch_size=4)
        self.held: list[Generation] = []

    @rule(size=st.sampled_from([64, 128]), steps=st.integers(1, 3), is_guided=st.booleans())
    def arrive(self, size: int, steps: int, is_guided: bool) -> None:
        self.held.append(generation(size, steps=steps, is_guided=is_guided))
        self.batcher.add(self.held[-1])

    @rule()
    def step(self) -> None:
        batch = take_step(self.batcher)
        assert set(batch) <= set(self.held)
        assert bool(batch) == bool(self.held)
        check_batch(batch, 4)
        self.held = [each for each in self.held if not each.is_denoised]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.held))
        self.held.remove(chosen)
        self.batcher.drop(chosen)

    @invariant()
    def holds_what_is_not_done(self) -> None:
        assert len(self.batcher) == len(self.held)


TestBatching = Batching.TestCase


def test_no_more_rows_than_there_is_memory_for_take_a_step_together() -> None:
    batcher = StepBatcher(max_batch_size=8, fitting_rows=lambda width, height: 64 * 64 * 3 // (width * height))
    large, small = [generation(size=64) for _ in range(5)], [generation(size=32) for _ in range(12)]
    for each in large + small:
        batcher.add(each)

    sizes = {batch[0].batch_key: len(batch) for batch in (batcher.next_batch(), batcher.next_batch())}

    assert sizes == {(64, 64): 3, (32, 32): 8}


def test_what_needs_more_rows_than_there_is_memory_for_is_tried_alone() -> None:
    batcher = StepBatcher(max_batch_size=8, fitting_rows=lambda _width, _height: 1)
    guided, other = generation(is_guided=True), generation()
    batcher.add(guided)
    batcher.add(other)

    assert batcher.next_batch() == [guided]
