"""What signs Content Credentials, read from the settings and tried: a certificate that cannot sign stops the start."""

from __future__ import annotations

import datetime
import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from safelight.errors import ConfigurationError
from safelight.picture.content_credentials import ContentCredentials, try_out
from safelight.settings import Settings

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_PEM = serialization.Encoding.PEM

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def read_content_credentials(settings: Settings) -> ContentCredentials | None:
    """Who signs the pictures of these settings; None: nobody. Raises ConfigurationError naming file and remedy."""
    certificate_path, key_path = settings.content_credentials_certificate, settings.content_credentials_key
    if certificate_path is None and key_path is None:
        return None
    if certificate_path is None or key_path is None:
        raise ConfigurationError(
            "content_credentials_certificate and content_credentials_key are given together, or neither"
        )
    chain, key = _read_chain(certificate_path), _read_key(key_path)
    _check_chain(chain, certificate_path)
    if _public_bytes(key.public_key()) != _public_bytes(chain[0].public_key()):
        raise ConfigurationError(
            f"{key_path} is not the key of the first certificate in {certificate_path}, which is the one that signs"
        )
    pkcs8 = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    credentials = ContentCredentials(
        algorithm=_algorithm(key, key_path),
        certificate_chain="".join(each.public_bytes(_PEM).decode() for each in chain),
        private_key=pkcs8.decode(),
    )
    try:
        try_out(credentials)
    except ConfigurationError as error:
        raise ConfigurationError(f"{certificate_path} cannot sign pictures: {error.message}") from None
    return credentials


def _read_chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{path} holds no certificate chain in PEM") from None


def _read_key(path: Path) -> PrivateKey:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"{path} can be read by others than its owner; run: chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except TypeError:
        raise ConfigurationError(
            f"{path} is encrypted; give the key without a passphrase, in a file of mode 600"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path} holds no private key in PEM") from None
    if not isinstance(key, PrivateKey):
        raise ConfigurationError(f"{path} holds a kind of key that C2PA does not know; use EC, RSA or Ed25519")
    return key


def _check_chain(chain: Sequence[x509.Certificate], path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    for each in chain:
        name = each.subject.rfc4514_string()
        if each.not_valid_after_utc < now:
            raise ConfigurationError(
                f"{path}: certificate {name} expired on {each.not_valid_after_utc:%Y-%m-%d}; renew it"
            )
        if each.not_valid_before_utc > now:
            raise ConfigurationError(
                f"{path}: certificate {name} is valid only from {each.not_valid_before_utc:%Y-%m-%d}"
            )
    for issued, issuer in pairwise(chain):
        try:
            issued.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            raise ConfigurationError(
                f"{path}: certificate {issued.subject.rfc4514_string()} is not issued by the one that follows; give "
                "the signing certificate first, then its issuer, and so on"
            ) from None


def _algorithm(key: PrivateKey, path: Path) -> str:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if key.curve.name not in _CURVES:
        raise ConfigurationError(f"{path} is on curve {key.curve.name}, which C2PA does not know; use P-256")
    return _CURVES[key.curve.name]


def _public_bytes(key: object) -> bytes:
    assert hasattr(key, "public_bytes")
    content: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return content
