"""A server of pictures: where it is, what it is sent, and whether what it answers is a picture."""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from safelight.cli.bench.mix import Picture
from safelight.errors import InvalidRequest

Api = Literal["openai", "huggingface"]
GENERATIONS = "/images/generations"
_BASE = re.compile(r"(.*/v1|.*/v1(beta)?/openai|/openai/deployments/[^/]+)/*")
"""What is a base URL to OpenAI's clients: the route follows at once."""
_AZURE = "/openai/deployments/"
_PICTURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|GIF8|....ftyp", re.DOTALL)
"""How PNG, JPEG, WebP, GIF and AVIF begin."""
_PUBLIC = "api-version"
_LEAST_SECRET = 8
"""Characters of a value in a query; what is shorter is a number or a word, of which messages are full."""
_MESSAGE_CHARACTERS = 300
_COUNTED = ("n", "num_images", "num_images_per_prompt")


@dataclass(frozen=True, slots=True)
class Target:
    """Where pictures come from."""

    shown: str
    """Its URL without what may be a secret."""
    host: str
    port: int
    path: str
    """With the query."""
    api: Api
    tls: ssl.SSLContext | None = None
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    """Fields of every body, beside what the mix says."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What is sent to the server and shown to nobody: the key, the query and its values; the longest first."""

    @property
    def authority(self) -> str:
        name = self.host.partition("%")[0]  # a zone is this machine's, and means nothing there (RFC 6874)
        host = f"[{name}]" if ":" in name else name
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def body(self, picture: Picture) -> bytes:
        """What is sent for one picture."""
        return json.dumps(_openai_body(self, picture) if self.api == "openai" else _hf_body(self, picture)).encode()

    def key_header(self, api_key: str) -> tuple[str, str]:
        """A Bearer key; where Azure's deployments are, as Azure wants it."""
        return ("api-key", api_key) if _AZURE in self.path else ("authorization", f"Bearer {api_key}")

    def told(self, text: str) -> str:
        """Words of the server, which may repeat what it was sent, in one line without what is secret."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        text = " ".join(text[: 4 * _MESSAGE_CHARACTERS].split())
        return text if len(text) <= _MESSAGE_CHARACTERS else text[:_MESSAGE_CHARACTERS] + " ..."


def parse_target(
    url: str,
    *,
    api: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    extra: str | None = None,
    certificate: Path | str | None = None,
) -> Target:
    """Raises InvalidRequest if the URL is none, or an option makes no sense."""
    parts, host, port = _parse_url(url)
    if api not in (None, "openai", "huggingface"):
        raise InvalidRequest(f"--api {api[:32]!r} is neither openai nor huggingface", field="api")
    path = parts.path or "/"
    is_openai = GENERATIONS in path or _BASE.fullmatch(path) is not None
    spoken: Api = "openai" if api == "openai" or (api is None and is_openai) else "huggingface"
    if spoken == "openai" and GENERATIONS not in path:
        path = path.rstrip("/") + ("" if is_openai else "/v1") + GENERATIONS
    return Target(
        shown=f"{parts.scheme}://{parts.netloc}{path}",
        host=host,
        port=port,
        path=f"{path}?{parts.query}" if parts.query else path,
        api=spoken,
        tls=_tls(certificate) if parts.scheme == "https" else None,
        api_key=api_key,
        model=model,
        extra=parse_extra(extra),
        secrets=_secrets(api_key, parts.query),
    )


def problem(target: Target, status: int, content: bytes) -> str | None:
    """What is wrong with an answer, in the server's words if it has some; None: it is a picture."""
    if status != 200:
        return _words(target, content) or "no word about it"
    if target.api == "huggingface":
        return None if _PICTURE.match(content) else f"no picture, but {_words(target, content) or 'nothing'}"
    try:
        (first, *_) = json.loads(content)["data"]
        if isinstance(first.get("url"), str) and first["url"]:
            return None
        head = base64.b64decode(first["b64_json"][:32], validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        return f"no picture, but {_words(target, content) or 'nothing'}"
    return None if _PICTURE.match(head) else "b64_json is no picture"


def _parse_url(url: str) -> tuple[SplitResult, str, int]:
    if not url.isascii() or any(not each.isprintable() or each == " " for each in url):
        raise InvalidRequest(f"{shown(url)!r} has characters that no URL has; encode them with %", field="url")
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else 443 if parts.scheme == "https" else 80
    except ValueError:
        raise InvalidRequest(f"{shown(url)!r} is no URL: it has no port or address like that", field="url") from None
    if "@" in parts.netloc:
        raise InvalidRequest("a password in a URL shows in listings; give it by --api-key-file", field="url")
    if not port:
        raise InvalidRequest(f"{shown(url)!r} has port 0, on which nothing listens", field="url")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"{shown(url)!r} is no URL of a server; one begins with http:// or https://", field="url")
    return parts, parts.hostname.replace("%25", "%"), port


def shown(url: str) -> str:
    """What is meant for a URL, without what may be a secret in it."""
    return re.split("[?#]", re.sub("//.*@", "//***@", url, flags=re.DOTALL))[0][:200]


def _secrets(api_key: str | None, query: str) -> tuple[str, ...]:
    """As they are sent, and as a server may have decoded them."""
    parts = [each for each in query.split("&") if each.partition("=")[0] != _PUBLIC]
    values = {each.partition("=")[2] for each in parts} | {value for _, value in parse_qsl("&".join(parts))}
    secrets = {each for each in values if len(each) >= _LEAST_SECRET} | {query if parts else "", api_key or ""}
    return tuple(sorted(secrets - {""}, key=len, reverse=True))


def _tls(certificate: Path | str | None) -> ssl.SSLContext:
    if certificate is not None:
        try:
            return ssl.create_default_context(cafile=certificate)
        except OSError as error:
            raise InvalidRequest(f"--certificate {certificate}: {error}", field="certificate") from None
    import httpx  # its list of whom to trust is the same on every system

    return httpx.create_ssl_context(trust_env=False)


def parse_extra(extra: str | None) -> Mapping[str, object]:
    """Fields, from a JSON object. Raises InvalidRequest."""
    try:
        fields = json.loads(extra or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"--extra is no JSON: {error}", field="extra") from None
    if not isinstance(fields, dict):
        raise InvalidRequest('--extra is a JSON object of fields, such as \'{"quality": "low"}\'', field="extra")
    for name in _COUNTED:
        if fields.get(name) not in (None, 1):
            raise InvalidRequest(f"--extra: each request counts as one picture; leave out {name}", field="extra")
    return fields


def _openai_body(target: Target, picture: Picture) -> Mapping[str, object]:
    shape = picture.shape
    fields = {
        "model": target.model,
        "prompt": picture.prompt,
        "n": 1,
        "size": None if shape.width is None else f"{shape.width}x{shape.height}",
        "num_inference_steps": picture.steps,
    }
    return {name: value for name, value in fields.items() if value is not None} | dict(target.extra)


def _hf_body(target: Target, picture: Picture) -> Mapping[str, object]:
    shape = picture.shape
    fields = {
        "width": shape.width,
        "height": shape.height,
        "num_inference_steps": picture.steps,
        "seed": picture.seed,
    }
    parameters = {name: value for name, value in fields.items() if value is not None} | dict(target.extra)
    return {"inputs": picture.prompt, "parameters": parameters}


def _words(target: Target, content: bytes) -> str:
    """The message of an error, or how an answer begins."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return target.told(content.decode(errors="replace"))
    for name in ("error", "detail", "message"):
        value = value.get(name, value) if isinstance(value, dict) else value
    return target.told(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
