from __future__ import annotations

import math

import pytest

from safelight.cli.pictures.patience import deadline
from safelight.errors import InvalidRequest


def test_a_person_waits_as_long_as_it_takes_unless_they_say_otherwise() -> None:
    assert deadline(None) == math.inf
    assert deadline(0.5) == 0.5


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.nan])
def test_a_timeout_that_gives_no_time_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidRequest, match="gives no time"):
        deadline(timeout)
