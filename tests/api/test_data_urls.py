"""Data URLs cost what they weigh: neither their head nor what is escaped in them takes more than their bytes."""

from __future__ import annotations

import base64
import random
import tracemalloc
from urllib.parse import quote

import pytest

from safelight.api.http.bodies.data_urls import PIECE_CHARACTERS, from_data_url
from safelight.errors import InvalidRequest

HEAD = "data:image/png;base64,"
NOISE = random.Random(0).randbytes(3 * PIECE_CHARACTERS)


@pytest.mark.parametrize("escape", ["%", "%2", "%41", "%2B", "%2b", "%%2B", "%C3%A4"])
def test_escapes_take_memory_in_step_with_the_text(escape: str) -> None:
    url = HEAD + escape * (PIECE_CHARACTERS // 2 // len(escape))
    tracemalloc.start()
    try:
        content = from_data_url(url, field="image")
    except InvalidRequest:
        content = b""
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert (content != b"") == (escape in ("%2B", "%2b"))
    assert peak < 8 * len(url)


@pytest.mark.parametrize("num_before", range(4))
def test_escapes_are_read_wherever_they_stand_in_a_long_text(num_before: int) -> None:
    """At the end of each piece too."""
    text = " " * num_before + quote(base64.encodebytes(NOISE).decode(), safe="")
    assert len(text) > 2 * PIECE_CHARACTERS

    assert from_data_url(HEAD + text, field="image") == NOISE
    assert from_data_url(HEAD + text.replace("%0A", "%0a").replace("%2B", "%2b"), field="image") == NOISE


@pytest.mark.parametrize("middle", [" ", ";", ";base64 ", "a"])
def test_a_head_that_is_none_is_not_looked_into(middle: str) -> None:
    with pytest.raises(InvalidRequest, match="must be a data URL"):
        from_data_url("data:image/png" + middle * 300 + ";base64,AAAA", field="image")
