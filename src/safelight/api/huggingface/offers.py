"""What each route of this dialect can answer with, the favourite of a client that names none first.

Two kinds of clients are given the same scoring URI and send `Accept: */*` to it: those of Azure read JSON, Hugging
Face's JavaScript client reads a picture and nothing else. Only the latter says who it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from safelight.api.http.event_stream import EVENT_STREAM
from safelight.picture.files import MEDIA_TYPES

JSON = "application/json"
OFFERS: Mapping[str, tuple[str, ...]] = {
    "/": (*MEDIA_TYPES.values(), JSON, EVENT_STREAM),
    "/predict": (*MEDIA_TYPES.values(), JSON, EVENT_STREAM),
    "/score": (JSON, *MEDIA_TYPES.values(), EVENT_STREAM),
}
"""Route -> media types."""
_HUGGING_FACE_JS = re.compile(r"(?:^|\s)@huggingface/inference/")
"""How its User-Agent begins, where the browser lets it have one of its own."""


def is_for_azure(path: str, user_agent: str) -> bool:
    """Whether a client of Azure is answered: in JSON if it asks for nothing, and with coded errors."""
    return path == "/score" and _HUGGING_FACE_JS.search(user_agent) is None


def offers_to(path: str, user_agent: str) -> tuple[str, ...]:
    """What `path` offers to this client."""
    return OFFERS[path] if is_for_azure(path, user_agent) else OFFERS["/predict"]
