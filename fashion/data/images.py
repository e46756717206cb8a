"""Decoding of image files, within limits."""

import io
import itertools
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from fashion.data import FORMAT_LIST, FORMATS
from fashion.errors import UserError, escaped

MAX_BYTES = 32 * 2**20
MIN_SIDE = 8  # pixels
MAX_SIDE = 16_000
MAX_PIXELS = 64_000_000
# JPEG scans, Exif segments and compressed metadata of PNG files
COSTLY = re.compile(rb"\xff(?:\xda\0[\x08\x0a\x0c\x0e]|\xe1..Exif\0\0)|iCCP|[iz]TXt", re.DOTALL)
MAX_COSTLY = 100  # a normal file has a dozen; a file full of them would take an hour to decode
SEGMENT = re.compile(rb"\xff[\xe0-\xef\xfe]")  # of a JPEG file
MAX_BLOCKS = 10_000  # segments of a JPEG or chunks of a PNG file; millions of empty ones would take ten seconds
TRANSPOSITIONS = {  # that undo an Exif orientation; Pillow's exif_transpose also rewrites the Exif data and may fail
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DECODING_ERRORS = (  # that Pillow raises on damaged files
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    AssertionError,
    EOFError,
    struct.error,
    zlib.error,
)
Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS applies; Pillow would warn at one size and fail at another


def printable(path: Path | str) -> str:
    """Return a path with control characters, and bytes that are not UTF-8, as escape sequences."""
    return escaped(os.fsencode(path).decode(errors="backslashreplace")).replace("\n", r"\n")


def open_image(path: Path) -> Image.Image:
    """Decode an image file.

    Raises:
        UserError: as for `decode`, or the file cannot be read. The message does not contain the path.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(error.strerror or str(error)) from error
    return decode(content)


def decode(content: bytes, on_black: Callable[[Image.Image], bool] = lambda _image: False) -> Image.Image:
    """Decode an image file into 8 bits, greyscale or RGB, and apply its Exif orientation.

    A transparent image is composited on white, or on black if `on_black` (of the RGBA image) is true.

    Raises:
        UserError: the file is not an image in one of `FORMATS`, is damaged or animated, or exceeds a limit.
    """
    if len(content) > MAX_BYTES:
        raise UserError(f"{len(content):,} bytes; the limit is {MAX_BYTES:,}: use a smaller file")
    if (count := len(COSTLY.findall(content))) > MAX_COSTLY:
        raise UserError(f"{count:,} scans or blocks of metadata; the limit is {MAX_COSTLY}: save the image again")
    if _blocks(content) > MAX_BLOCKS:
        raise UserError(f"more than {MAX_BLOCKS:,} segments or chunks, the limit: save the image again")
    try:
        with warnings.catch_warnings(action="ignore"):  # about metadata, such as damaged Exif data
            image = Image.open(io.BytesIO(content), formats=[name.upper() for name in FORMATS])
            _check(image)
            return _convert(image, on_black)
    except UnidentifiedImageError as error:
        raise UserError(f"{'not a' if content else 'empty file; expected a'} {FORMAT_LIST} image") from error
    except DECODING_ERRORS as error:
        raise UserError(f"damaged image ({error}); export or download it again") from error


def _blocks(content: bytes) -> int:
    """Return the number of segments of a JPEG file or chunks of a PNG file, up to `MAX_BLOCKS` + 1."""
    if content.startswith(b"\xff\xd8"):
        return sum(1 for _ in itertools.islice(SEGMENT.finditer(content), MAX_BLOCKS + 1))
    count, at = 0, 8
    while content.startswith(b"\x89PNG") and at < len(content) and count <= MAX_BLOCKS:
        at += 12 + int.from_bytes(content[at : at + 4], "big")
        count += 1
    return count


def _check(image: Image.Image) -> None:
    """Refuse an image that is too large, too small or animated, before it is decoded."""
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise UserError(
            f"{width:,} x {height:,} pixels; the limits are {MAX_PIXELS:,} pixels and {MAX_SIDE:,} per side: "
            "scale the image down"
        )
    if min(width, height) < MIN_SIDE:
        raise UserError(f"{width} x {height} pixels; the minimum is {MIN_SIDE} x {MIN_SIDE}: use a larger image")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a photograph that embeds previews
        raise UserError("animated image; save a single frame and use that")


def _convert(image: Image.Image, on_black: Callable[[Image.Image], bool]) -> Image.Image:
    """Decode the pixels of an open image and convert them as `decode` describes."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DECODING_ERRORS:  # the Exif data are damaged, not the image
        orientation = None
    if orientation in TRANSPOSITIONS:
        image = image.transpose(TRANSPOSITIONS[orientation])
    if image.mode.startswith("I"):  # 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        matte = Image.new("RGBA", image.size, "black" if on_black(image) else "white")
        image = Image.alpha_composite(matte, image)
    return image if image.mode == "L" else image.convert("RGB")
