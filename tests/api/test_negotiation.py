"""Content negotiation as RFC 9110 has it."""

from __future__ import annotations

import pytest

from safelight.api.http.negotiation import negotiate
from safelight.errors import NotAcceptable

PNG, JPEG, WEBP, JSON = "image/png", "image/jpeg", "image/webp", "application/json"
OFFERS = (PNG, JPEG, WEBP, JSON)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", PNG),
        (" , ", PNG),
        ("*/*", PNG),
        ("*", PNG),
        ("image/*", PNG),
        ("application/*", JSON),
        ("IMAGE/WebP", WEBP),
        ("image/webp;q=0.5, image/jpeg;q=0.9", JPEG),
        ("image/webp, image/jpeg", WEBP),
        ("image/avif, image/webp, image/apng, */*;q=0.8", WEBP),
        ("application/json, text/plain, */*", JSON),
        ("image/png;q=0, */*", JPEG),
        ("*/*;q=0.1, image/*;q=0.2, application/json;q=0.3", JSON),
        ("image/*;q=0.2, image/jpeg;q=0.1", PNG),
        ("image/avif, image/jpg", JPEG),
        ("image/webp;q=high", WEBP),
        ("image/webp;q=nan, image/png;q=0.5", WEBP),
        ("image/webp;q=7, image/png", WEBP),
        ("application/json;charset=utf-8", JSON),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", JPEG),
    ],
)
def test_the_client_gets_what_it_likes_best(accept: str, chosen: str) -> None:
    assert negotiate([accept], OFFERS) == chosen


@pytest.mark.parametrize("accept", ["image/avif", "text/html", "image/png;q=0", "*/*;q=0", "nonsense", ";;q=1,x"])
def test_what_nobody_can_make_is_refused_with_the_list(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="image/png, image/jpeg, image/webp, application/json"):
        negotiate([accept], OFFERS)


def test_a_list_that_nobody_writes_is_refused() -> None:
    with pytest.raises(NotAcceptable, match="more than 100 media types"):
        negotiate(["*/*," * 60, "image/png," * 60], OFFERS)


def test_several_accept_fields_count_as_one_list() -> None:
    assert negotiate(["text/html", "image/webp"], OFFERS) == WEBP
