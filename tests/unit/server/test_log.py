"""What uploads may write into the server's log."""

from __future__ import annotations

import struct
import warnings

from safelight.picture.incoming.still_pictures import read_still_picture
from safelight.server.run import silence_pillow
from tests.unit.picture.incoming.test_file_parts import chunk, png_of


def exif(num_tags: int) -> bytes:
    """Each tag says that its value is longer than the file."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 1 << 20, 8) for tag in range(1, num_tags + 1))
    return b"II*\0" + struct.pack("<IH", 8, num_tags) + tags + bytes(4)


def test_an_upload_with_thousands_of_wrong_tags_writes_no_line() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        silence_pillow()
        picture = read_still_picture(png_of(chunk(b"eXIf", exif(65_535))), field="image", max_pixels=256)

    assert picture.image.size == (16, 16)
    assert [str(each.message) for each in said] == []
