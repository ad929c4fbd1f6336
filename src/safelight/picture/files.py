"""Pixels to image bytes and back: PNG, JPEG and WebP, with where the picture came from written into the file.

The recipe is JSON: in a PNG the text chunk `safelight`, in JPEG and WebP EXIF's UserComment. An XMP packet beside it
says in IPTC's words what other programs show. Encoding happens in the replica's process (it takes milliseconds of CPU
that the gateway's event loop must not spend).
"""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from safelight.errors import InvalidRequest
from safelight.picture.content_credentials import ContentCredentials, sign
from safelight.picture.generation import ImageFormat
from safelight.picture.recipe import Recipe, parse_recipe

MEDIA_TYPES: Mapping[ImageFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""Image format -> what an HTTP Content-Type calls it."""
MAX_JPEG_METADATA = 65_000
"""Bytes: a segment of a JPEG has at most 65,533, and XMP's has a header."""
_KEYWORD = "safelight"
_EXIF_SOFTWARE, _EXIF_IFD, _EXIF_USER_COMMENT = 0x0131, 0x8769, 0x9286
_ASCII = b"ASCII\0\0\0"
"""The character code that EXIF wants before a UserComment."""
_FORMATS: Mapping[str | None, ImageFormat] = {"PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp"}
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, MemoryError, OverflowError)
"""What Pillow raises on files that are cut short or make no sense."""
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image file, read."""

    image_format: ImageFormat
    pixels: np.ndarray
    """uint8, height x width x 3."""
    recipe: Recipe | None


def encode(
    pixels: np.ndarray,
    *,
    image_format: ImageFormat,
    image_quality: int = 95,
    recipe: Recipe | None = None,
    credentials: ContentCredentials | None = None,
) -> bytes:
    """The image file of `pixels` (uint8, height x width x 3), with its recipe, signed if there are credentials.

    `image_quality` (1 to 100) is for JPEG and WebP. A JPEG has no room for very long prompts: they are withheld. Raises
    EngineFailure if it cannot be signed.
    """
    assert pixels.dtype == np.uint8, pixels.dtype
    assert pixels.ndim == 3, pixels.shape
    assert pixels.shape[2] == 3, pixels.shape
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if recipe is not None and image_format == "jpeg" and max(len(_exif(recipe)), len(_xmp(recipe))) > MAX_JPEG_METADATA:
        recipe = recipe.without_prompts()
    if image_format == "png":
        image.save(buffer, "PNG", pnginfo=_text_chunks(recipe))
    else:
        metadata = {} if recipe is None else {"exif": _exif(recipe), "xmp": _xmp(recipe)}
        subsampling = {"subsampling": 0} if image_format == "jpeg" else {}  # 4:4:4: flat colours keep their edges
        image.save(buffer, image_format.upper(), quality=image_quality, **subsampling, **metadata)
    if recipe is None or credentials is None:
        return buffer.getvalue()
    return sign(buffer.getvalue(), media_type=MEDIA_TYPES[image_format], recipe=recipe, credentials=credentials)


def encode_preview(pixels: np.ndarray, *, image_format: ImageFormat, image_quality: int = 95) -> bytes:
    """The image file of a preview: as fast as can be, and without a recipe."""
    if image_format == "png":
        return _quick_png(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format.upper(), quality=image_quality, method=0)  # method is WebP's
    return buffer.getvalue()


def decode(content: bytes) -> Picture:
    """The pixels and the recipe of an image file. Raises InvalidRequest, worded to follow the file's name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in the metadata of a stranger's file
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
                pixels = np.asarray(image.convert("RGB"))
                text = _recipe_text(image)
                image_format = _FORMATS[image.format]
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidRequest(f"has more pixels than the {Image.MAX_IMAGE_PIXELS} that are read") from None
    except UnidentifiedImageError:
        raise InvalidRequest("is no PNG, JPEG or WebP file") from None
    except _BROKEN as error:
        raise InvalidRequest(f"is broken: {str(error)[:100]}") from None
    return Picture(image_format=image_format, pixels=pixels, recipe=parse_recipe(text))


def _quick_png(pixels: np.ndarray) -> bytes:
    """In half the time that Pillow takes, which tries five filters for each row: https://www.w3.org/TR/png-3/."""
    height, width, channels = pixels.shape
    values = pixels.reshape(height, width * channels)
    rows = np.full((height, 1 + width * channels), 2, np.uint8)  # each row begins with its filter; 2 is "up":
    rows[0, 1:] = values[0]
    rows[1:, 1:] = values[1:] - values[:-1]  # the difference from the row above, modulo 256
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _recipe_text(image: Image.Image) -> str:
    if image.format == "PNG":
        return str(image.info.get(_KEYWORD, ""))
    comment = image.getexif().get_ifd(_EXIF_IFD).get(_EXIF_USER_COMMENT, b"")
    return comment.removeprefix(_ASCII).decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)


def _text_chunks(recipe: Recipe | None) -> PngInfo:
    chunks = PngInfo()
    if recipe is not None:
        chunks.add_text("Software", _software(recipe))
        text = json.dumps(recipe.as_dict(), ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
        chunks.add_text(_KEYWORD, text)  # iTXt (UTF-8) by itself where Latin-1 is not enough
        chunks.add_itxt("XML:com.adobe.xmp", _xmp(recipe).decode("utf-8"))
    return chunks


def _exif(recipe: Recipe) -> bytes:
    """ASCII, since readers disagree on the byte order of EXIF's Unicode; JSON escapes the rest."""
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = _software(recipe)
    comment = _ASCII + json.dumps(recipe.as_dict()).encode("ascii")
    exif.get_ifd(_EXIF_IFD)[_EXIF_USER_COMMENT] = [bytearray(comment)]  # UNDEFINED; of bytes Pillow makes BYTE
    return exif.tobytes()


def _xmp(recipe: Recipe) -> bytes:
    """IPTC Photo Metadata 2025.1: made by an algorithm, by which, and from what words."""
    negative = f"\nnegative prompt: {recipe.negative_prompt}" if recipe.negative_prompt else ""
    properties = {
        "xmp:CreatorTool": _software(recipe),
        "Iptc4xmpExt:DigitalSourceType": recipe.digital_source_type,
        "Iptc4xmpExt:AISystemUsed": recipe.model,
        "Iptc4xmpExt:AISystemVersionUsed": recipe.revision,
        **({"Iptc4xmpExt:AIPromptInformation": recipe.prompt + negative} if recipe.prompt else {}),
    }
    elements = "".join(f"<{name}>{escape(_NOT_IN_XML.sub('?', value))}</{name}>" for name, value in properties.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f'{elements}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def _software(recipe: Recipe) -> str:
    return f"safelight {recipe.safelight}"
