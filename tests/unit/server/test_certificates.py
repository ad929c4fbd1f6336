from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from safelight.errors import ConfigurationError
from safelight.server.certificates import certificate_files
from safelight.settings import Settings


def test_a_certificate_for_localhost_is_made_once_with_a_private_key(tmp_path: Path) -> None:
    certificate, key = certificate_files(Settings(data_dir=tmp_path))
    content = certificate.read_bytes()

    assert certificate_files(Settings(data_dir=tmp_path)) == (certificate, key)
    assert certificate.read_bytes() == content
    assert key.stat().st_mode & 0o777 == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)


def test_it_names_what_clients_may_call_this_server(tmp_path: Path) -> None:
    certificate, _ = certificate_files(Settings(data_dir=tmp_path, host="images.example.org"))

    extension = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    names = {str(name) for name in extension.value.get_values_for_type(x509.DNSName)}
    addresses = {str(address) for address in extension.value.get_values_for_type(x509.IPAddress)}
    assert names == {"localhost", "*.localhost", "images.example.org"}
    assert addresses == {"127.0.0.1", "::1"}


def test_a_given_certificate_is_taken(tmp_path: Path) -> None:
    certificate, key = certificate_files(Settings(data_dir=tmp_path))
    settings = Settings(data_dir=tmp_path / "other", tls_certificate=certificate, tls_private_key=key)

    assert certificate_files(settings) == (certificate, key)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"tls_certificate": "a.pem"}, "together"), ({"tls_certificate": "a.pem", "tls_private_key": "b.pem"}, "a.pem")],
)
def test_a_certificate_that_is_not_there_is_named(tmp_path: Path, given: dict[str, str], message: str) -> None:
    paths = {name: tmp_path / path for name, path in given.items()}

    with pytest.raises(ConfigurationError, match=message):
        certificate_files(Settings(data_dir=tmp_path, **paths))  # type: ignore[arg-type]
