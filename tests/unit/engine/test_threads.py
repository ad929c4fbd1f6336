"""Half of the threads are taken where they make the same, and are wanted or faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from safelight.engine.threads import MIN_SEEN, TRY_AGAIN_AFTER, Threads

pytestmark = pytest.mark.usefixtures("four_threads")


class Work:
    """Takes the seconds, and makes the number, that it is told for so many threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.threads: list[int] = []
        self.makes: Callable[[int], float] = lambda threads: 0.5
        self.now = 0.0

    def __call__(self) -> Tensor:
        self.threads.append(torch.get_num_threads())
        self.now += self.seconds[self.threads[-1]]
        return torch.tensor(self.makes(self.threads[-1]))

    def most_of_late(self) -> int:
        late = self.threads[-10:]
        return max(set(late), key=late.count)


@pytest.mark.parametrize(("seconds", "faster"), [({2: 1.0, 4: 1.2}, 2), ({2: 1.2, 4: 1.0}, 4)])
def test_the_faster_number_of_threads_is_learned(seconds: dict[int, float], faster: int) -> None:
    work = Work(seconds)
    threads = Threads(lambda: work.now)

    for _ in range(1 + 2 * MIN_SEEN + 10):
        threads.with_what_is_faster("a step", work)

    assert work.most_of_late() == faster
    assert torch.get_num_threads() == 4


def test_what_was_slower_is_asked_again_and_taken_when_it_is_faster_now() -> None:
    work = Work({2: 1.0, 4: 1.2})
    threads = Threads(lambda: work.now)
    for _ in range(1 + 2 * MIN_SEEN):
        threads.with_what_is_faster("a step", work)
    work.seconds = {2: 1.0, 4: 0.5}

    for _ in range(2 * TRY_AGAIN_AFTER):
        threads.with_what_is_faster("a step", work)

    assert work.most_of_late() == 4


def test_whoever_leaves_room_takes_half_however_fast_it_is() -> None:
    work = Work({2: 2.0, 4: 1.0})
    threads = Threads(lambda: work.now)

    for _ in range(20):
        threads.with_half("a step", work)

    assert work.threads == [4, 2, *[2] * 19]


def test_work_that_depends_on_the_threads_has_all_of_them() -> None:
    work = Work({2: 1.0, 4: 2.0})
    threads = Threads(lambda: work.now)
    work.makes = float

    made = [run("a step", work).item() for run in (threads.with_what_is_faster, threads.with_half) for _ in range(20)]

    assert set(made) == {4.0}


def test_one_thread_has_no_half() -> None:
    torch.set_num_threads(1)
    work = Work({1: 1.0})
    threads = Threads(lambda: work.now)

    for run in (threads.with_what_is_faster, threads.with_half):
        for _ in range(3 * MIN_SEEN):
            run("a step", work)

    assert work.threads == [1] * 6 * MIN_SEEN


def test_what_was_learned_of_one_shape_says_nothing_of_another() -> None:
    small, large = Work({2: 1.0, 4: 2.0}), Work({2: 2.0, 4: 1.0})
    threads = Threads(lambda: small.now + large.now)
    for _ in range(1 + 2 * MIN_SEEN + 10):
        threads.with_what_is_faster("small", small)
    for _ in range(1 + 2 * MIN_SEEN + 10):
        threads.with_what_is_faster("large", large)

    assert (small.most_of_late(), large.most_of_late()) == (2, 4)
