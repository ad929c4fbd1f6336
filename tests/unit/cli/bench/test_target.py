"""Where a server is, and what of it may be shown."""

from __future__ import annotations

import pytest

from safelight.cli.bench.target import parse_target
from safelight.errors import InvalidRequest

KEY = "sk-0123456789abcdef"


@pytest.mark.parametrize(
    ("url", "api", "path"),
    [
        ("http://a", None, "/"),
        ("http://a", "openai", "/v1/images/generations"),
        ("http://a/v1/", None, "/v1/images/generations"),
        ("http://a/endpoints/flux", None, "/endpoints/flux"),
        ("http://a/endpoints/flux", "openai", "/endpoints/flux/v1/images/generations"),
        ("http://a/v1/openai", None, "/v1/openai/images/generations"),
        ("http://a/v1beta/openai/", None, "/v1beta/openai/images/generations"),
        ("http://a/openai/v1", None, "/openai/v1/images/generations"),
        (
            "http://a/openai/deployments/flux?api-version=2024-10-21",
            None,
            "/openai/deployments/flux/images/generations?api-version=2024-10-21",
        ),
        ("http://a/x/images/generations", None, "/x/images/generations"),
        ("http://a/x/images/generations", "huggingface", "/x/images/generations"),
        ("http://[::1]:8000/v1", None, "/v1/images/generations"),
    ],
)
def test_a_base_url_is_what_it_is_to_its_own_clients(url: str, api: str | None, path: str) -> None:
    target = parse_target(url, api=api)

    assert target.path == path
    assert target.api == (api or ("openai" if "generations" in path else "huggingface"))


def test_an_address_of_ipv6_is_reached_by_its_zone_and_named_without() -> None:
    target = parse_target("http://[fe80::1%25eth0]:8000/v1")

    assert (target.host, target.authority) == ("fe80::1%eth0", "[fe80::1]:8000")


def test_a_key_goes_where_its_api_has_it() -> None:
    azure, other = (parse_target(f"http://a{path}") for path in ("/openai/deployments/flux", "/openai/v1"))

    assert azure.key_header(KEY) == ("api-key", KEY)
    assert other.key_header(KEY) == ("authorization", f"Bearer {KEY}")


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{KEY}@127.0.0.1:x/",
        f"http://user:{KEY}@127.0.0.1:9/",
        f"http://user:a/b?{KEY}#@127.0.0.1:99999/",
        f"http://127.0.0.1:{KEY}@b:9/",
        f"http://127.0.0.1:99999/score?code={KEY}",
        f"http://127.0.0.1:0/score?code={KEY}",
        f"http://[::1/score?code={KEY}",
        f"ftp://127.0.0.1/score?code={KEY}",
        f"http://127.0.0.1/ score#{KEY}",
        f"http:///score?code={KEY}",
    ],
)
def test_what_is_no_url_is_refused_without_a_secret_in_it(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_target(url)

    assert KEY not in refused.value.message


def test_what_is_sent_in_secret_is_not_in_what_a_target_is_written_as() -> None:
    assert KEY not in repr(parse_target("http://a/", api_key=KEY))
