"""A batch never hurts: a number of rows that was seen to be dearer by the row is not made, but now and then."""

from __future__ import annotations

from collections.abc import Callable

from safelight.serving.replica.step_costs import MIN_SEEN, TRY_AGAIN_AFTER, StepCosts

SIZE, OTHER = (256, 256), (1024, 1024)


def serve(costs: StepCosts, seconds_of: Callable[[int], float], *, num_steps: int, waiting: int = 8) -> list[int]:
    """The rows of each batch, while so many wait."""
    made = []
    for _ in range(num_steps):
        made.append(min(waiting, costs.cap(SIZE)))
        costs.observe(SIZE, made[-1], seconds_of(made[-1]))
    return made


def test_rows_that_share_a_step_well_are_all_taken() -> None:
    costs = StepCosts(8)
    for waiting in (1, 2, 4, 8):
        serve(costs, lambda rows: 1 + 0.5 * rows, num_steps=MIN_SEEN, waiting=waiting)

    assert serve(costs, lambda rows: 1 + 0.5 * rows, num_steps=20) == [8] * 20


def test_a_batch_that_costs_more_by_the_row_is_cut_to_the_rows_that_cost_least() -> None:
    costs = StepCosts(8)
    seconds = {1: 1.0, 2: 1.6, 4: 4.0, 8: 16.0}
    for waiting in (1, 2, 4, 8):
        serve(costs, seconds.__getitem__, num_steps=MIN_SEEN, waiting=waiting)

    assert serve(costs, seconds.__getitem__, num_steps=TRY_AGAIN_AFTER - 10) == [2] * (TRY_AGAIN_AFTER - 10)
    assert costs.cap(OTHER) == 8


def test_a_cut_is_not_for_ever() -> None:
    costs = StepCosts(8)
    for waiting in (1, 8):
        serve(costs, {1: 1.0, 8: 80.0}.__getitem__, num_steps=MIN_SEEN, waiting=waiting)
    assert costs.cap(SIZE) == 1

    made = serve(costs, lambda rows: 1 + 0.1 * rows, num_steps=(MIN_SEEN + 1) * TRY_AGAIN_AFTER)

    assert made[-3:] == [8, 8, 8]


def test_one_slow_moment_changes_nothing() -> None:
    costs = StepCosts(8)
    for waiting in (1, 8):
        serve(costs, lambda rows: 1 + 0.1 * rows, num_steps=MIN_SEEN, waiting=waiting)
    for _ in range(MIN_SEEN - 1):
        costs.observe(SIZE, 8, 100.0)

    assert costs.cap(SIZE) == 8
