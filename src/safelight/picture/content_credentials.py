"""Content Credentials (C2PA): a signature in the file that says who made the picture, with what, and from which recipe.

c2pa-python is an extra (`safelight[c2pa]`) and is loaded only where it is used. Signing takes milliseconds, and needs
no network. `signing_certificate` reads what signs from the settings.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from safelight import __version__
from safelight.errors import ConfigurationError, EngineFailure
from safelight.picture.recipe import SOURCE_TYPES, Recipe

RECIPE_LABEL = "safelight.picture.recipe"
_GENERATOR = {"name": "Safelight", "version": __version__}
_SIGNING = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}
_READING = {"verify": {"remote_manifest_fetch": False}}
"""A file of a stranger makes no network request."""
_UNTRUSTED = "signingCredential.untrusted"
_MARKS = (b"jumb", b"c2pa")
"""In every file that holds a C2PA manifest."""

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentCredentials:
    """Who signs. Texts are PEM."""

    algorithm: str
    """es256, es384, es512, ps256 or ed25519."""
    certificate_chain: str
    """The signing certificate first."""
    private_key: str = field(repr=False)
    """PKCS #8, not encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the Content Credentials of a file are worth."""

    state: Literal["none", "invalid", "valid", "trusted", "unchecked"]
    """valid: the file is as it was signed; trusted: and the signer's certificate leads to a trust anchor; unchecked: it
    has a signature, but the library to check it is not installed."""
    signed_by: str = ""
    signed_with: str = ""
    """The program that made the claim."""
    problems: tuple[str, ...] = ()


def sign(content: bytes, *, media_type: str, recipe: Recipe, credentials: ContentCredentials) -> bytes:
    """The same image file with a signed manifest. Raises EngineFailure: better no picture than one without the mark."""
    c2pa = _load_library()
    try:
        return _sign(c2pa, content, media_type, _manifest(recipe.as_dict(), recipe.digital_source_type), credentials)
    except c2pa.C2paError as error:
        raise EngineFailure(f"the picture could not be signed: {_reason(error)}") from None


def try_out(credentials: ContentCredentials) -> None:
    """Sign a pixel. Raises ConfigurationError if the library refuses to, or finds fault with the outcome."""
    c2pa = _load_library()
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    manifest = _manifest({}, SOURCE_TYPES + "trainedAlgorithmicMedia")
    try:
        verification = verify(_sign(c2pa, pixel.getvalue(), "image/png", manifest, credentials))
    except c2pa.C2paError as error:
        raise ConfigurationError(
            f"{_reason(error)} (it must allow digitalSignature and an extended use such as emailProtection, and be "
            "no authority's)"
        ) from None
    if verification.state == "invalid":
        raise ConfigurationError("; ".join(verification.problems))


def verify(content: bytes, *, trust_anchors: str | None = None) -> Verification:
    """Whether an image file was signed, by whom, and what speaks against it. `trust_anchors` are PEM."""
    if not all(mark in content for mark in _MARKS):
        return Verification(state="none")
    try:
        c2pa = _load_library()
    except ConfigurationError as error:
        return Verification(state="unchecked", problems=(error.message,))
    trust = {} if trust_anchors is None else {"trust": {"trust_anchors": trust_anchors}}
    try:
        with (
            c2pa.Context.from_dict(_READING | trust) as context,
            c2pa.Reader(io.BytesIO(content), context=context) as it,
        ):
            return _verification(json.loads(it.json()))
    except c2pa.C2paError as error:
        return Verification(state="invalid", problems=(_reason(error),))


def _load_library() -> Any:
    """The module c2pa. Raises ConfigurationError with the remedy."""
    try:
        import c2pa  # noqa: PLC0415  an extra, and 23 MB
    except ImportError:
        raise ConfigurationError(
            "Content Credentials need the library c2pa-python: pip install 'safelight[c2pa]'"
        ) from None
    return c2pa


def _sign(c2pa: Any, content: bytes, media_type: str, manifest: JsonObject, credentials: ContentCredentials) -> bytes:
    """Raises C2paError."""
    info = c2pa.C2paSignerInfo(
        credentials.algorithm, credentials.certificate_chain.encode(), credentials.private_key.encode(), None
    )
    signed = io.BytesIO()
    with (
        c2pa.Context.from_dict(_SIGNING, c2pa.Signer.from_info(info)) as context,
        c2pa.Builder(json.dumps(manifest), context=context) as builder,
    ):
        builder.sign(media_type, io.BytesIO(content), signed)
    return signed.getvalue()


def _manifest(recipe: JsonObject, digital_source_type: str) -> JsonObject:
    """A manifest definition of c2pa-rs: a trained algorithm created this, from this recipe."""
    action = {"action": "c2pa.created", "softwareAgent": _GENERATOR, "digitalSourceType": digital_source_type}
    return {
        "claim_generator_info": [_GENERATOR],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": RECIPE_LABEL, "data": recipe},
        ],
    }


def _verification(report: JsonObject) -> Verification:
    state = str(report.get("validation_state", "invalid")).lower()
    manifest = report.get("manifests", {}).get(report.get("active_manifest"), {})
    signature = manifest.get("signature_info", {})
    generators = [
        f"{each.get('name')} {each.get('version', '')}".strip() for each in manifest.get("claim_generator_info", [])
    ]
    problems = [str(each.get("explanation") or each.get("code")) for each in report.get("validation_status", [])]
    return Verification(
        state="valid" if state == "valid" else "trusted" if state == "trusted" else "invalid",
        signed_by=", ".join(str(signature[key]) for key in ("common_name", "issuer") if signature.get(key)),
        signed_with=", ".join(generators),
        problems=tuple(dict.fromkeys(problems)),
    )


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
