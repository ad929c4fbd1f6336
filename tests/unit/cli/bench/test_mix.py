"""What requests ask for."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from safelight.cli.bench.mix import Shape, parse_mix, pictures
from safelight.errors import InvalidRequest


def test_a_mix_says_sizes_steps_and_weights() -> None:
    assert parse_mix("256x256@4:9, 512x768@8-16:0.5,@2,64x64") == (
        Shape("256x256@4", 256, 256, range(4, 5), 9.0),
        Shape("512x768@8-16", 512, 768, range(8, 17), 0.5),
        Shape("@2", None, None, range(2, 3), 1.0),
        Shape("64x64", 64, 64, None, 1.0),
    )


@pytest.mark.parametrize(
    "text", ["", ",", ":3", "256", "0x0", "99999x1", "1x1@0", "1x1@1001", "1x1@5-2", "1x1:0", "²x2"]
)
def test_what_is_no_mix_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--mix"):
        parse_mix(text)


def test_pictures_come_by_weight_with_all_steps_and_the_same_for_the_same_seed() -> None:
    shapes = parse_mix("256x256@4-6:9,512x512@16:1")
    drawn = list(islice(pictures(shapes, (), 7), 2_000))

    counts = Counter(each.shape.name for each in drawn)
    assert 1_700 < counts["256x256@4-6"] < 1_900
    assert {each.steps for each in drawn} == {4, 5, 6, 16}
    assert drawn == list(islice(pictures(shapes, (), 7), 2_000))
    assert drawn != list(islice(pictures(shapes, (), 8), 2_000))
    assert max(each.seed for each in drawn) < 2**32


def test_prompts_do_not_repeat_soon_unless_they_are_given() -> None:
    drawn = list(islice(pictures((Shape("any"),), (), 0), 100))
    given = list(islice(pictures((Shape("any"),), ("one", "other"), 0), 4))

    assert len({each.prompt for each in drawn}) > 95
    assert [each.prompt for each in given] == ["one", "other", "one", "other"]
