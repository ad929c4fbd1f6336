"""The `Prefer` header (RFC 7240): whether the client would rather poll than wait, and for how long it waits first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from safelight.errors import InvalidRequest

RESPOND_ASYNC = "respond-async"
MAX_PREFERENCES = 100


@dataclass(frozen=True, slots=True)
class Preferences:
    """What is understood of the header; all else is ignored, as the RFC wants it."""

    is_async: bool = False
    wait_s: float = 0.0


def read_preferences(fields: Sequence[str]) -> Preferences:
    """`fields` are all the Prefer fields of a request; of a preference given twice the first counts.

    Raises InvalidRequest.
    """
    given: dict[str, str] = {}
    text = ",".join(fields)
    if text.count(",") >= MAX_PREFERENCES:
        raise InvalidRequest(f"Prefer has more than {MAX_PREFERENCES} preferences; send fewer", field="Prefer")
    for element in text.split(","):
        name, _, value = element.partition(";")[0].partition("=")
        given.setdefault(name.strip().lower(), value.strip().strip('"'))
    return Preferences(RESPOND_ASYNC in given, _seconds(given.get("wait", "")))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
