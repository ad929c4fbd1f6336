"""The certificate for HTTPS: the one that is given, or a self-signed one that is made once and kept."""

from __future__ import annotations

import datetime
import ipaddress
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from safelight.errors import ConfigurationError
from safelight.settings import Settings
from safelight.whole_files import write_whole

LIFETIME = datetime.timedelta(days=825)
"""The longest that all TLS clients accept."""
RENEW_BEFORE = datetime.timedelta(days=30)


def certificate_files(settings: Settings) -> tuple[Path, Path]:
    """The PEM files of the certificate and its key. Raises ConfigurationError."""
    given = (settings.tls_certificate, settings.tls_private_key)
    if given[0] is not None and given[1] is not None:
        for path in (given[0], given[1]):
            if not path.is_file():
                raise ConfigurationError(
                    f"{path} does not exist; give PEM files as tls_certificate and tls_private_key"
                )
        return given[0], given[1]
    if any(given):
        raise ConfigurationError("tls_certificate and tls_private_key are given together, or neither")
    certificate, key = settings.data_dir / "tls-certificate.pem", settings.data_dir / "tls-private-key.pem"
    if not certificate.exists() or not key.exists() or _expires_soon(certificate):
        _make(certificate, key, settings.host)
    return certificate, key


def _expires_soon(path: Path) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) < RENEW_BEFORE


def _make(certificate_path: Path, key_path: Path, host: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Safelight")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(key_path, key.private_bytes(pem, pkcs8, serialization.NoEncryption()), 0o600)
    _write(certificate_path, certificate.public_bytes(pem), 0o644)


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName("*.localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        names.append(x509.DNSName(host))
    else:
        names.append(x509.DNSName(socket.gethostname()) if address.is_unspecified else x509.IPAddress(address))
    return list(dict.fromkeys(names))


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        write_whole(path, content.decode(), mode=mode)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
