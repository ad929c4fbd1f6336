"""What is said where a picture takes longer than requests may: once, when the model is ready, and not in each 408."""

from __future__ import annotations

import math

from safelight.model.spec import ModelSpec

OF_SERVE = "start with --request-timeout {needed}, "
OF_DEPLOYMENT = "give the deployment a request_timeout_ms of {needed}000 (180000 is the most that is taken), "
_OTHERWISE = (
    "ask for smaller pictures or fewer steps, or have them made as jobs (Prefer: respond-async), which have a day"
)
_MARGIN = 1.5
"""The estimate is of steps alone, and another picture may be in the batch."""


def pace_warning(spec: ModelSpec, picture_s: float | None, *, timeout_s: float, remedy: str) -> str | None:
    """None if the model's default picture is made in time, as far as is known."""
    if picture_s is None or picture_s <= timeout_s:
        return None
    needed = math.ceil(picture_s * _MARGIN / 10) * 10
    return (
        f"a picture of {spec.default_width}x{spec.default_height} in {spec.default_num_inference_steps} steps takes "
        f"about {picture_s:.0f} s here, and requests end after {timeout_s:g} s: "
        f"{remedy.format(needed=needed)}{_OTHERWISE}"
    )
