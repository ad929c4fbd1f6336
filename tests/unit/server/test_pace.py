from __future__ import annotations

import pytest

from safelight.server.pace import OF_DEPLOYMENT, OF_SERVE, pace_warning
from tests.fakes import FAKE_SPEC


@pytest.mark.parametrize("picture_s", [None, 0.1, 180.0])
def test_of_what_is_made_in_time_nothing_is_said(picture_s: float | None) -> None:
    assert pace_warning(FAKE_SPEC, picture_s, timeout_s=180.0, remedy=OF_SERVE) is None


def test_what_takes_longer_than_a_request_may_is_said_with_what_to_set() -> None:
    told = pace_warning(FAKE_SPEC, 1200.0, timeout_s=180.0, remedy=OF_SERVE)

    assert told is not None
    assert "a picture of 64x64 in 4 steps takes about 1200 s here, and requests end after 180 s" in told
    assert "--request-timeout 1800," in told
    assert "Prefer: respond-async" in told


def test_a_deployment_is_told_of_its_own_field() -> None:
    told = pace_warning(FAKE_SPEC, 170.0, timeout_s=60.0, remedy=OF_DEPLOYMENT)

    assert told is not None
    assert "request_timeout_ms of 260000" in told
