"""`safelight bench`: load on a server of pictures, whoever made it, and what came of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.cli.bench import options

if TYPE_CHECKING:
    from safelight.cli.bench.load import Load
    from safelight.cli.bench.own_server import OwnServer
    from safelight.cli.bench.run import Outputs
    from safelight.cli.bench.target import Target


_LACKS_SCHEME = re.compile(r"(?!azureml:)(\[[0-9a-f:]+\]|[\w.-]+):[0-9]{1,5}(/.*)?", re.ASCII | re.IGNORECASE)
"""A host and a port; no name of a model has both."""
MAX_KEY_CHARACTERS = 16_384
MAX_RATE = 10_000
"""Requests a second: more than Python sends, and each is noted whether or not it is sent."""


def bench(
    subject: options.Subject,
    *,
    api: options.Api = None,
    compare: options.Compare = None,
    compare_api: options.CompareApi = None,
    rounds: options.Rounds = None,
    clients: options.Clients = None,
    rate: options.Rate = None,
    mix: options.Mix = None,
    prompt: options.Prompt = None,
    duration: options.Duration = None,
    requests: options.Requests = None,
    warm_up: options.WarmUp = 3.0,
    timeout: options.Timeout = 120.0,
    honour_retry_after: options.HonourRetryAfter = None,
    api_key_env: options.ApiKeyEnv = None,
    api_key_file: options.ApiKeyFile = None,
    compare_api_key_env: options.CompareApiKeyEnv = None,
    compare_api_key_file: options.CompareApiKeyFile = None,
    certificate: options.Certificate = None,
    model: options.ModelName = None,
    extra: options.Extra = None,
    price_per_hour: options.PricePerHour = None,
    serve_options: options.ServeOptions = None,
    seed: options.Seed = 0,
    json: options.Json = None,
    plot: options.Plot = None,
) -> None:
    """Measure a server of pictures, or two against each other.

    It may be any that speaks OpenAI's image API or Hugging Face's. Failed requests are counted by what was said; a
    request that was to be sent while the server stalled counts from then.
    """
    from safelight.cli.bench.mix import Shape, parse_mix
    from safelight.cli.bench.run import Asked, Measurement, measure

    load = _load(
        clients=clients,
        rate=rate,
        duration=duration,
        requests=requests,
        warm_up=warm_up,
        timeout=timeout,
        honour_retry_after=honour_retry_after,
        is_compared=compare is not None,
    )
    ways = {"model": model, "extra": extra, "certificate": _at_home(certificate, "certificate")}
    first = _first(subject, api, _read_key(api_key_env, api_key_file), serve_options, ways)
    second = _second(compare, compare_api, _read_key(compare_api_key_env, compare_api_key_file), rounds, ways)
    _check_effect([first, second], model, certificate)
    shapes = parse_mix(mix) if mix is not None else (Shape("as it comes"),)
    measurement = Measurement(
        first=first,
        second=second,
        load=load,
        asked=Asked(shapes, tuple(prompt or ()), seed),
        rounds=(rounds or 5) if compare is not None else 1,
    )
    measure(measurement, _outputs(json, plot, price_per_hour))


def _first(
    subject: str, api: str | None, key: str | None, serve_options: str | None, ways: Mapping[str, Any]
) -> Target | OwnServer:
    from safelight.cli.bench.target import parse_target

    if _is_url(subject, api, serve_options):
        return parse_target(subject, api=api, api_key=key, **ways)
    return _own_server(subject, serve_options, key, ways["extra"])


def _second(
    url: str | None, api: str | None, key: str | None, rounds: int | None, ways: Mapping[str, Any]
) -> Target | None:
    from safelight.cli.bench.target import parse_target

    if url is not None:
        return parse_target(url, api=api, api_key=key, **ways)
    for name, value in (("--rounds", rounds), ("--compare-api", api), ("the key of another", key)):
        if value is not None:
            raise _wrong("compare", f"{name} is for two servers; name the other by --compare")
    return None


def _own_server(model: str, options: str | None, api_key: str | None, extra: str | None) -> OwnServer:
    from safelight.cli.bench.own_server import OwnServer
    from safelight.cli.bench.target import parse_extra

    parse_extra(extra)  # before a server is started for it
    return OwnServer(model=model, options=options or "", api_key=api_key, extra=extra)


def _outputs(json: Path | None, plot: Path | None, price_per_hour: float | None) -> Outputs:
    from safelight.cli.bench.run import Outputs

    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise _wrong("price_per_hour", f"--price-per-hour {price_per_hour:g} is no price")
    if plot == Path("-"):
        raise _wrong("plot", "--plot - is no file, and standard output has the figures; name a file")
    if json is not None and plot is not None and os.path.realpath(json) == os.path.realpath(plot):
        raise _wrong("plot", f"--json and --plot cannot both be {json}; name two files")
    return Outputs(_at_home(json, "json"), _at_home(plot, "plot"), price_per_hour)


def _load(
    *,
    clients: int | None,
    rate: float | None,
    duration: float | None,
    requests: int | None,
    warm_up: float,
    timeout: float,
    honour_retry_after: bool | None,
    is_compared: bool,
) -> Load:
    from safelight.cli.bench.load import Load

    if rate is not None and clients is not None:
        raise _wrong("rate", "--clients wait for their pictures, and with --rate nobody waits; give one of them")
    if rate is not None and honour_retry_after is not None:
        raise _wrong("honour_retry_after", "with --rate nobody waits, whatever the server says; leave it out")
    if duration is not None and requests is not None:
        raise _wrong("requests", "a run ends after --duration or after --requests; give one of them")
    if rate is not None and rate > MAX_RATE:
        raise _wrong("rate", f"--rate {rate:g} is more than the {MAX_RATE:,} requests a second that are sent from here")
    for name, value in (("rate", rate), ("duration", duration), ("timeout", timeout)):
        if value is not None and not 0 < value < float("inf"):
            raise _wrong(name, f"--{name} {value:g} must be above 0, and an end to it")
    if not 0 <= warm_up < float("inf"):
        raise _wrong("warm_up", f"--warm-up {warm_up:g} must have an end")
    return Load(
        clients=clients or 1,
        rate=rate,
        duration_s=duration or (10.0 if is_compared else 30.0),
        requests=requests,
        warm_up_s=warm_up,
        timeout_s=timeout,
        honours_retry_after=honour_retry_after is not False,
    )


def _check_effect(servers: Sequence[Target | OwnServer | None], model: str | None, certificate: Path | None) -> None:
    """Raises InvalidRequest for what would be sent to nobody, or checked by nobody."""
    from safelight.cli.bench.target import Target

    targets = [each for each in servers if isinstance(each, Target)]
    if model is not None and not any(each.api == "openai" for each in targets):
        raise _wrong("model", "--model is a field of OpenAI's API, which no server here is asked in; see --api")
    if certificate is not None and not any(each.tls for each in targets):
        raise _wrong("certificate", "--certificate is for https://, which no server here is asked by")


def _is_url(subject: str, api: str | None, serve_options: str | None) -> bool:
    """Whether a running server is measured, or a model. Raises InvalidRequest for an option that is for the other."""
    from safelight.cli.bench.target import shown

    is_url = "://" in subject and not subject.startswith("azureml:")
    if _LACKS_SCHEME.fullmatch(subject):
        raise _wrong("url", f"{shown(subject)!r} is no URL of a server; write http:// or https:// before it")
    if api is not None and not is_url:
        raise _wrong("api", f"--api is for a URL, and {shown(subject)!r} is none; one begins with http:// or https://")
    if serve_options is not None and is_url:
        raise _wrong("serve_options", "--serve-options are for a model that a server is started for, not for a URL")
    return is_url


def _read_key(variable: str | None, file: Path | None) -> str | None:
    """Never an option's value, which would show in listings of processes. Raises InvalidRequest, without the key."""
    from safelight.environment import read_environment

    if variable is not None and file is not None:
        raise _wrong("api_key_env", "a key is in a variable or in a file; give one of them")
    if variable is None and file is None:
        return None
    if variable is not None and not re.fullmatch(r"[A-Za-z_]\w*", variable, re.ASCII):
        raise _wrong("api_key_env", "--api-key-env takes the name of a variable that holds the key, not the key")
    file = _at_home(file, "api_key_file")
    try:
        key = _read_start(file) if file else read_environment().get(variable or "", "").strip()
    except (OSError, ValueError) as error:
        raise _wrong(
            "api_key_file", f"{file} cannot be read: {getattr(error, 'strerror', None) or 'no text'}"
        ) from None
    if not key:
        raise _wrong("api_key_env", f"there is no key in {file or f'the variable {variable}'}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise _wrong(
            "api_key_env", f"what is in {file or f'the variable {variable}'} is no key: it is one line of ASCII"
        )
    return key


def _read_start(file: Path) -> str:
    """As much as a key may have, of a file that may have no end. Raises OSError or ValueError."""
    with file.open(encoding="utf-8") as lines:
        return lines.read(MAX_KEY_CHARACTERS).strip()


def _at_home(path: Path | None, field: str) -> Path | None:
    from safelight.cli.az.options import at_home

    return None if path is None else at_home(path, field)


def _wrong(field: str, message: str) -> Exception:
    from safelight.errors import InvalidRequest

    return InvalidRequest(message, field=field)
