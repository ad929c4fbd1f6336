"""Signatures in image files, and what becomes of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from safelight.errors import EngineFailure
from safelight.picture.content_credentials import ContentCredentials, Verification, verify
from safelight.picture.files import decode, encode
from safelight.picture.generation import ImageFormat
from safelight.picture.signing_certificate import read_content_credentials
from safelight.settings import Settings
from tests.recipes import RECIPE
from tests.signing import SigningFiles, write_signing_files

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
FORMATS = ("png", "jpeg", "webp")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SigningFiles:
    return write_signing_files(tmp_path_factory.mktemp("signing"))


def signed(files: SigningFiles, image_format: ImageFormat = "png") -> bytes:
    credentials = read_content_credentials(Settings(**files.settings))  # type: ignore[arg-type]
    return encode(NOISE, image_format=image_format, recipe=RECIPE, credentials=credentials)


@pytest.mark.parametrize("image_format", FORMATS)
def test_signing_changes_neither_pixels_nor_recipe(files: SigningFiles, image_format: ImageFormat) -> None:
    plain, marked = encode(NOISE, image_format=image_format, recipe=RECIPE), signed(files, image_format)

    assert np.array_equal(decode(plain).pixels, decode(marked).pixels)
    assert decode(marked).recipe == RECIPE


@pytest.mark.parametrize("image_format", FORMATS)
def test_one_changed_byte_makes_it_invalid(files: SigningFiles, image_format: ImageFormat) -> None:
    content = bytearray(signed(files, image_format))
    assert verify(bytes(content)).state == "valid"

    content[-3] ^= 1  # after the manifest, whatever the format

    assert verify(bytes(content)).state == "invalid"


def test_a_known_authority_makes_it_trusted_and_another_one_does_not(files: SigningFiles, tmp_path: Path) -> None:
    other = write_signing_files(tmp_path)
    content = signed(files)

    trusted = verify(content, trust_anchors=files.root.read_text())
    assert (trusted.state, trusted.signed_by, trusted.problems) == ("trusted", "Test Studio, Test Organization", ())
    assert verify(content, trust_anchors=other.root.read_text()).state == "valid"


def test_a_picture_without_a_signature_says_so() -> None:
    assert verify(encode(NOISE, image_format="png", recipe=RECIPE)) == Verification(state="none")


def test_a_manifest_in_ruins_is_invalid(files: SigningFiles) -> None:
    content = signed(files, "jpeg")

    verification = verify(content[: content.index(b"c2pa") + 200])

    assert verification.state == "invalid"
    assert verification.problems


def test_without_the_library_it_is_unchecked(files: SigningFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    content = signed(files)
    monkeypatch.setitem(sys.modules, "c2pa", None)

    verification = verify(content)

    assert verification.state == "unchecked"
    assert "pip install 'safelight[c2pa]'" in verification.problems[0]


def test_a_picture_that_cannot_be_signed_any_more_is_not_made(tmp_path: Path) -> None:
    files = write_signing_files(tmp_path, starts_in_days=-9, ends_in_days=-2)
    expired = ContentCredentials(
        algorithm="es256", certificate_chain=files.certificate.read_text(), private_key=files.key.read_text()
    )

    with pytest.raises(EngineFailure, match=r"the picture could not be signed: .*not valid at time of signing"):
        encode(NOISE, image_format="png", recipe=RECIPE, credentials=expired)
