"""How long a person waits for pictures that a replica of their own makes: a bar shows how far it is, so no limit."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from safelight.errors import InvalidRequest

Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="Give up what is not done after so long; by default it may take its time."
    ),
]


def deadline(timeout: float | None) -> float:
    """Seconds that a request may take; infinite unless a person has said how many. Raises InvalidRequest."""
    if timeout is None:
        return math.inf
    if not timeout > 0:
        raise InvalidRequest(
            f"--timeout {timeout:g} gives no time; leave it out, or say how many seconds", field="timeout"
        )
    return timeout
