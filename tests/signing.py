"""Certificates that may sign Content Credentials, and some that may not, made on the spot."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
EMAIL, TLS_SERVER = ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.SERVER_AUTH
_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class SigningFiles:
    """PEM files: a chain of two certificates, the key of the first, and the root alone."""

    certificate: Path
    key: Path
    root: Path

    @property
    def settings(self) -> dict[str, Path]:
        return {"content_credentials_certificate": self.certificate, "content_credentials_key": self.key}


def write_signing_files(
    folder: Path,
    *,
    key: PrivateKey | None = None,
    starts_in_days: int = -2,
    ends_in_days: int = 300,
    extended_use: x509.ObjectIdentifier = EMAIL,
) -> SigningFiles:
    """A certificate of 'Test Studio' and its authority, as C2PA wants them unless the arguments say otherwise."""
    key, root_key = key or ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    start, end = (now + datetime.timedelta(days=days) for days in (starts_in_days, ends_in_days))
    leaf = _builder("Test Studio", "Test Root", key, root_key, start, end)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf = leaf.add_extension(_usage("digital_signature"), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([extended_use]), critical=False)
    root_pem, leaf_pem = self_signed(root_key), _pem(leaf.sign(root_key, hashes.SHA256()))
    folder.mkdir(parents=True, exist_ok=True)
    files = SigningFiles(folder / "chain.pem", folder / "key.pem", folder / "root.pem")
    files.root.write_bytes(root_pem)
    files.certificate.write_bytes(leaf_pem + root_pem)
    write_key(files.key, key)
    return files


def self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The certificate of an authority, in PEM."""
    now, year = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=365)
    root = _builder("Test Root", "Test Root", key, key, now - year, now + year)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    root = root.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    return _pem(root.sign(key, hashes.SHA256()))


def write_key(path: Path, key: PrivateKey, *, mode: int = 0o600, password: bytes | None = None) -> None:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    path.unlink(missing_ok=True)
    path.touch(mode)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, encryption))


def _builder(
    subject: str, issuer: str, key: PrivateKey, issuer_key: PrivateKey, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Organization"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _USES})


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
