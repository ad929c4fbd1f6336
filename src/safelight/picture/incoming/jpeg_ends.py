"""A JPEG that was cut off: whether anything but its last marker is missing.

libjpeg paints grey what it does not find, and Pillow does not hear of it. So the file is decoded with several endings
of arbitrary bits: libjpeg skips them where the picture is whole, and takes them for pixels where it is not.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
from collections.abc import Iterator

from PIL import Image

END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_SCAN = 0xDA
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_FIRST_BITS = (0b00000000, 0b01010101, 0b10101010, 0b11111110)


def lacks_only_its_end(content: bytes) -> bool:
    """Whether `content`, a JPEG without an end, is the whole picture, in all its detail."""
    return _has_all_scans(content) and _is_whatever_follows(content)


def _has_all_scans(content: bytes) -> bool:
    """Whether its scans bring the 64 coefficients of each component to their last bit: ITU-T T.81, B.2.3 and G.1.1."""
    missing: set[tuple[int, int]] = set()
    for marker, segment in _segments(content):
        if marker in _FRAMES:
            missing = {(component, k) for component in segment[6:18:3] for k in range(64)}
        if marker == _SCAN and 6 <= len(segment) <= 12:  # of one to four components
            first, last, bits = segment[-3:]
            if bits & 15 == 0:  # the bits that later scans are to bring
                missing -= {(component, k) for component in segment[1:-3:2] for k in range(first, last + 1)}
    return not missing


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Each marker that has a length, and what it holds; the pixels behind a scan's are skipped."""
    position = 2
    while found := _MARKER.search(content, position):
        marker, position = found[1][0], found.end()
        if marker not in _WITHOUT_LENGTH:
            length = int.from_bytes(content[position : position + 2])
            yield marker, content[position + 2 : position + length]
            position += length


def _is_whatever_follows(content: bytes) -> bool:
    """Whether its pixels are the same with whatever bits follow, in a row and after the restart that would be next."""
    restarts = _RESTART.findall(content, content.rfind(b"\xff\xda"))
    restart = bytes((0xFF, 0xD0 + (restarts[-1][0] - 0xD0 + 1) % 8 if restarts else 0xD0))
    cut = content + b"\0" if content.endswith(b"\xff") else content  # FF 00 is a byte of pixels, FF and more a marker
    dice = random.Random(0)
    endings = [bytes((bits,)) + dice.randbytes(256).replace(b"\xff", b"") for bits in _FIRST_BITS]
    return len({_digest(cut + bits + restart + bits + END) for bits in endings}) == 1


def _digest(content: bytes) -> bytes:
    """Of the pixels."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        return hashlib.sha256(image.tobytes()).digest()
