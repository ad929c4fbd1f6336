"""Certificates and keys that can sign Content Credentials, and one line for each that cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from safelight.errors import ConfigurationError
from safelight.picture.signing_certificate import read_content_credentials
from safelight.settings import Settings
from tests.signing import TLS_SERVER, PrivateKey, SigningFiles, self_signed, write_key, write_signing_files


@pytest.fixture
def files(tmp_path: Path) -> SigningFiles:
    return write_signing_files(tmp_path)


def read(files: SigningFiles) -> object:
    return read_content_credentials(Settings(**files.settings))  # type: ignore[arg-type]


def refusal(files: SigningFiles) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(files)
    assert "\n" not in caught.value.message
    assert "PRIVATE KEY" not in caught.value.message
    return caught.value.message


def test_without_settings_nobody_signs() -> None:
    assert read_content_credentials(Settings()) is None


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "es256"),
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ec.generate_private_key(ec.SECP521R1()), "es512"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_every_kind_of_key_that_c2pa_knows_signs(tmp_path: Path, key: PrivateKey, algorithm: str) -> None:
    credentials = read_content_credentials(Settings(**write_signing_files(tmp_path, key=key).settings))  # type: ignore[arg-type]

    assert credentials is not None
    assert credentials.algorithm == algorithm


def test_the_key_is_in_no_text_of_the_credentials(files: SigningFiles) -> None:
    assert "PRIVATE" not in repr(read(files))


def test_one_without_the_other_is_refused(files: SigningFiles) -> None:
    with pytest.raises(ConfigurationError, match="together"):
        read_content_credentials(Settings(content_credentials_key=files.key))


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_a_file_that_is_not_there_is_named(files: SigningFiles, name: str) -> None:
    path: Path = getattr(files, name)
    path.unlink()

    assert refusal(files) == f"{path} cannot be read: No such file or directory"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(files: SigningFiles, mode: int) -> None:
    files.key.chmod(mode)

    assert refusal(files).endswith(f"run: chmod 600 {files.key}")


@pytest.mark.parametrize("name", ["certificate", "key"])
@pytest.mark.parametrize(
    "content", [b"", b"once upon a time", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"]
)
def test_a_file_that_is_no_pem_is_named(files: SigningFiles, name: str, content: bytes) -> None:
    path: Path = getattr(files, name)
    path.write_bytes(content)

    assert str(path) in refusal(files)


def test_an_encrypted_key_is_refused(files: SigningFiles) -> None:
    write_key(files.key, ec.generate_private_key(ec.SECP256R1()), password=b"open sesame")

    assert "is encrypted" in refusal(files)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256K1()), x25519.X25519PrivateKey.generate()])
def test_a_kind_of_key_that_c2pa_does_not_know_is_refused(files: SigningFiles, key: PrivateKey) -> None:
    write_key(files.key, key)

    assert str(files.key) in refusal(files)


def test_the_key_of_another_certificate_is_refused(files: SigningFiles) -> None:
    write_key(files.key, ec.generate_private_key(ec.SECP256R1()))

    assert f"{files.key} is not the key of the first certificate in {files.certificate}" in refusal(files)


def test_a_chain_in_the_wrong_order_is_refused(files: SigningFiles) -> None:
    root = files.root.read_bytes()
    files.certificate.write_bytes(root + files.certificate.read_bytes().removesuffix(root))

    assert "give the signing certificate first" in refusal(files)


@pytest.mark.parametrize(("days", "expected"), [((-9, -2), "expired on"), ((2, 9), "is valid only from")])
def test_a_certificate_out_of_its_time_is_refused(tmp_path: Path, days: tuple[int, int], expected: str) -> None:
    files = write_signing_files(tmp_path, starts_in_days=days[0], ends_in_days=days[1])

    message = refusal(files)
    assert expected in message
    assert "CN=Test Studio" in message


def test_a_certificate_for_another_use_is_refused(tmp_path: Path) -> None:
    files = write_signing_files(tmp_path, extended_use=TLS_SERVER)

    assert f"{files.certificate} cannot sign pictures" in refusal(files)
    assert "emailProtection" in refusal(files)


def test_an_authority_of_its_own_is_no_signer(files: SigningFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(files.key, key)
    files.certificate.write_bytes(self_signed(key))

    assert "self-signed" in refusal(files)


def test_without_the_library_the_extra_is_named(files: SigningFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)

    assert "pip install 'safelight[c2pa]'" in refusal(files)
