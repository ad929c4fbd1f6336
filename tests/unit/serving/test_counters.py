from __future__ import annotations

from safelight.serving.counters import Counters, StageTime


def test_counters_add_up_field_by_field() -> None:
    one = Counters(transformer_calls=1, steps_run=2, batch_sizes={1: 1, 2: 1}, stages={"queue": StageTime(1, 0.5)})
    other = Counters(steps_saved=3, prompt_cache_hits=4, batch_sizes={2: 5}, stages={"queue": StageTime(1, 1.0)})

    total = one + other

    assert total == Counters(
        transformer_calls=1,
        steps_run=2,
        steps_saved=3,
        prompt_cache_hits=4,
        batch_sizes={1: 1, 2: 6},
        stages={"queue": StageTime(2, 1.5)},
    )


def test_stages_of_either_side_are_kept() -> None:
    total = Counters(stages={"decode": StageTime(1, 1.0)}) + Counters(stages={"encode": StageTime(2, 2.0)})

    assert total.stages == {"decode": StageTime(1, 1.0), "encode": StageTime(2, 2.0)}


def test_what_was_counted_since_is_what_has_to_be_added() -> None:
    before = Counters(steps_run=2, replica_restarts=1, batch_sizes={1: 1}, stages={"queue": StageTime(1, 0.5)})
    now = Counters(steps_run=5, replica_restarts=1, batch_sizes={1: 1, 4: 2}, stages={"queue": StageTime(4, 2.0)})

    since = now - before

    assert since.steps_run == 3
    assert before + since == now
