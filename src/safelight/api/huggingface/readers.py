"""Who reads the answer: two kinds of clients are given one scoring URI, and ask it for `*/*` both.

Those of Azure read JSON there, and coded errors; Hugging Face's JavaScript client reads a picture and nothing else, and
of an error only its text. The latter says who it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastapi import Request

_USER_AGENT = re.compile(r"(?:^|\s)@huggingface/inference/")
"""What it begins with, where the browser lets it have one of its own."""


def is_hugging_face_js(user_agent: str) -> bool:
    """Whether a `User-Agent` is that of `@huggingface/inference`."""
    return _USER_AGENT.search(user_agent) is not None


def offers_to(request: Request, offers: Sequence[str]) -> Sequence[str]:
    """The same, pictures first for a client that reads nothing else."""
    if not is_hugging_face_js(request.headers.get("user-agent", "")):
        return offers
    return sorted(offers, key=lambda offer: not offer.startswith("image/"))
