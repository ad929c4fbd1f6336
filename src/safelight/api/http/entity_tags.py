"""`ETag` and `If-None-Match`: who has an answer already is not sent it again (RFC 9110, 8.8.3 and 13.1.2)."""

from __future__ import annotations

from collections.abc import Sequence


def has_already(if_none_match: Sequence[str], etag: str) -> bool:
    """Whether one of the fields `If-None-Match` names the tag, quotes included; compared weakly."""
    tags = [each.strip().removeprefix("W/") for each in ",".join(if_none_match).split(",")]
    return "*" in tags or etag in tags
