"""What a decoder pays for other than by the bytes of a file: passes over the pixels, segments, chunks."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from safelight.errors import InvalidRequest
from safelight.picture.incoming.still_pictures import read_still_picture

MAX_PIXELS = 16_777_216
SIDE = 4096
HEAD_OF_PNG = b"\x89PNG\r\n\x1a\n"


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def progressive_jpeg(num_scans: int, side: int = SIDE) -> bytes:
    """Grey, and as large as is read. Each scan after the second says in 27 bytes at most that all remains as it is."""
    tables = segment(0xDB, b"\0" + bytes([1] * 64)) + b"".join(
        segment(0xC4, kind + bytes([1] + [0] * 15) + symbol)
        for kind, symbol in ((b"\x00", b"\x00"), (b"\x10", b"\xe0"))
    )
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    num_blocks = (side // 8) ** 2
    bits = ("0" + "1" * 14) * -(-num_blocks // 32767)  # the longest run of blocks without anything new
    bits += "1" * (-len(bits) % 8)
    nothing_new = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes(num_blocks // 8)
    second = segment(0xDA, b"\1\1\0\x01\x3f\x01") + nothing_new
    others = (segment(0xDA, b"\1\1\0\x01\x3f\x10") + nothing_new) * (num_scans - 2)
    return b"\xff\xd8" + tables + frame + first + second + others + b"\xff\xd9"


def chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(*chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0))
    return HEAD_OF_PNG + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(bytes(17 * 16))) + chunk(b"IEND")


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((256, 256), 60).convert("RGB").save(file, "JPEG", **options)
    return file.getvalue()


TOO_MANY = {
    "scans": progressive_jpeg(101),
    "scans, many": progressive_jpeg(100_000, side=64),
    "segments": b"\xff\xd8" + segment(0xE5, b"") * 5000 + jpeg()[2:],
    "comments": b"\xff\xd8" + segment(0xFE, b"") * 5000 + jpeg()[2:],
    "chunks": png_of(chunk(b"abCd") * 65_536),
    "empty IDAT": png_of(chunk(b"IDAT") * 65_536),
}


@pytest.mark.parametrize("content", TOO_MANY.values(), ids=TOO_MANY)
def test_a_file_of_too_many_parts_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"image is a (JPEG|PNG) of more than") as refusal:
        read_still_picture(content, field="image", max_pixels=MAX_PIXELS)

    assert refusal.value.field == "image"


WHOLE = {
    "as many scans as are read": progressive_jpeg(100, side=64),
    "progressive": jpeg(progressive=True),
    "a restart after each block": jpeg(restart_marker_blocks=1),
    "the largest metadata": jpeg(icc_profile=bytes(3_000_000)),
    "a film behind it": jpeg() + random.Random(0).randbytes(20_000_000),
    "a preview in its metadata": b"\xff\xd8" + segment(0xE5, jpeg(quality=20)) + jpeg()[2:],
    "zeros behind a PNG": png_of() + bytes(3_000_000),
    "chunks of 4 KiB": png_of(chunk(b"abCd", bytes(4096)) * 2000),
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_what_encoders_and_cameras_write_is_read(content: bytes) -> None:
    assert read_still_picture(content, field="image", max_pixels=MAX_PIXELS).image.width in (16, 64, 256)
