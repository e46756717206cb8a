"""Preprocessing of image files: from any image of a piece of clothing to one like those of the data set.

The steps are those that made the data set: trim, resize the longest edge, sharpen, pad, negate, convert to greyscale
(H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv:1708.07747, section 2). Its photographs had a pure white
background; here the background is detected first, and the model input is the difference from it.
"""

import io
import re
import struct
import warnings
import zlib
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import ExifTags, Image, ImageFilter, UnidentifiedImageError

from fashion.data import dataset
from fashion.errors import UserError
from fashion.serving import FORMAT_LIST, FORMATS

Background = Literal["light", "dark"]
Colours = UInt8[np.ndarray, "height width 3"]
Mask = Bool[np.ndarray, "height width"]

MAX_BYTES = 32 * 2**20
MIN_SIDE = 8  # pixels
MAX_SIDE = 16_000
MAX_PIXELS = 64_000_000
WORKING_SIDE = 500  # pixels; a longer edge is reduced first, for speed
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue in grey, as in ITU-R BT.601
COSTLY = re.compile(rb"\xff(?:\xda\0[\x08\x0a\x0c\x0e]|\xe1..Exif\0\0)", re.DOTALL)  # JPEG scans and Exif segments
MAX_COSTLY = 100  # a normal file has a dozen; a file full of them would take an hour to decode
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
MAX_UNEVENNESS = 40  # grey levels; an edge of the image that differs by more shows clothing, not uneven light
NEARLY_WHITE = 0.75 * 255  # mean grey level; transparent images above it are composited on black
MIN_DIFFERENCE = 0.05 * 255  # grey levels; smaller differences from the background count as none, as for the data set

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS applies; Pillow would warn at one size and fail at another


def preprocess(content: bytes, shape: tuple[int, int], background: Background | None = None) -> dataset.Image:
    """Return the model input for an image file.

    An image of the right size is only converted to greyscale and, if its background is light, negated.

    Args:
        content: the bytes of an image file in one of `FORMATS`.
        shape: height and width of the model input, in pixels.
        background: light or dark; detected at the image's border by default.

    Raises:
        UserError: as for `decode`, or the image shows only background.
    """
    image = decode(content, background)
    if image.size == shape[::-1]:
        grey = np.asarray(image.convert("L"))
        light = background == "light" or (background is None and (grey[_border(grey)] > 127).mean() > 0.5)
        return 255 - grey if light else grey
    image = image.convert("RGB").reduce(max(1, -(-max(image.size) // WORKING_SIDE)))
    return _fit(_trim(_difference(np.asarray(image), background)), shape)


def decode(content: bytes, background: Background | None = None) -> Image.Image:
    """Decode an image file into 8 bits, greyscale or RGB, and apply its Exif orientation.

    A transparent image is composited on white; on black if `background` is dark, or if the image itself is nearly
    white.

    Raises:
        UserError: the file is not an image in one of `FORMATS`, is damaged or animated, or exceeds a limit.
    """
    if len(content) > MAX_BYTES:
        raise UserError(f"{len(content):,} bytes; the limit is {MAX_BYTES:,}: use a smaller file")
    if (count := len(COSTLY.findall(content))) > MAX_COSTLY:
        raise UserError(f"{count:,} JPEG scans and Exif segments; the limit is {MAX_COSTLY}: save the image again")
    try:
        with warnings.catch_warnings(action="ignore"):  # about metadata, such as damaged Exif data
            image = Image.open(io.BytesIO(content), formats=[name.upper() for name in FORMATS])
            _check(image)
            return _convert(image, background)
    except UnidentifiedImageError as error:
        raise UserError(f"{'not a' if content else 'empty file; expected a'} {FORMAT_LIST} image") from error
    except DECODING_ERRORS as error:
        raise UserError(f"damaged image ({error}); export or download it again") from error


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


def _convert(image: Image.Image, background: Background | None) -> Image.Image:
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
        dark = background == "dark" or (background is None and _is_nearly_white(image))
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black" if dark else "white"), image)
    return image if image.mode == "L" else image.convert("RGB")


def _is_nearly_white(image: Image.Image) -> bool:
    """Return whether the opaque part of a transparent image would hardly stand out from white."""
    pixels = np.asarray(image.resize((64, 64), Image.Resampling.BOX), np.float32)
    opacity = pixels[..., 3]
    return bool(((pixels[..., :3] @ LUMA) * opacity).sum() > NEARLY_WHITE * opacity.sum())


def _difference(colours: Colours, background: Background | None) -> Float[np.ndarray, "height width"]:
    """Return each pixel's difference from the background, from 0 (no significant difference) to about 255."""
    visible = _border(colours)  # the pixels that show the background
    if background is not None:
        visible &= (colours @ LUMA > 127) == (background == "light")
    default = np.full(3, 255 if background == "light" else 0, np.float32)
    behind = _background_plane(colours, visible) if visible.any() else default
    difference = np.abs(colours - behind) @ LUMA
    noise = float(np.median(difference[visible])) if visible.any() else 0.0
    smooth = np.asarray(Image.fromarray(difference.astype(np.uint8)).filter(ImageFilter.MedianFilter(5)))
    grey = behind @ LUMA
    significant = smooth > max(MIN_DIFFERENCE, 3 * noise)
    return np.where(significant, difference * 255 / np.maximum(grey, 255 - grey), np.float32(0))


def _background_plane(colours: Colours, visible: Mask) -> Float[np.ndarray, "height width 3"]:
    """Return the colour of the background at each pixel: a plane through the median colours of the four edges.

    Only `visible` pixels count. Where the median of an edge differs from that of the whole border by more than
    `MAX_UNEVENNESS`, the edge shows clothing, and the median of the border is used.
    """
    border = np.median(colours[visible], axis=0)

    def median(edge: tuple[int | slice, ...]) -> np.ndarray:
        colour = np.median(colours[edge][visible[edge]], axis=0) if visible[edge].any() else border
        return np.asarray(colour if np.abs(colour - border).max() <= MAX_UNEVENNESS else border)

    everything = slice(None)
    top, bottom, left, right = (median(edge) for edge in ((0,), (-1,), (everything, 0), (everything, -1)))
    height, width = colours.shape[:2]
    down, across = np.linspace(-0.5, 0.5, height)[:, None, None], np.linspace(-0.5, 0.5, width)[None, :, None]
    plane: np.ndarray = (top + bottom + left + right) / 4 + (bottom - top) * down + (right - left) * across
    return plane.astype(np.float32)


def _trim(difference: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "h w"]:
    """Return the bounding box of all that is not background."""
    rows, columns = (np.flatnonzero(difference.any(axis=axis)) for axis in (1, 0))
    if not len(rows) or min(rows[-1] - rows[0], columns[-1] - columns[0]) < 2:
        raise UserError(
            "only background found; use an image of one piece of clothing on a plain background, or set the "
            "background to light or dark"
        )
    return difference[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fit(grey: Float[np.ndarray, "h w"], shape: tuple[int, int]) -> dataset.Image:
    """Resize an image to fit `shape`, scale its brightest pixel to 255, sharpen it and pad it with black.

    The brightest pixel of nearly every image of the data set is 254 or 255.
    """
    scale = min(side / edge for side, edge in zip(shape, grey.shape, strict=True))
    height, width = (max(1, round(edge * scale)) for edge in grey.shape)
    resized = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX))
    small = Image.fromarray((resized * (255 / resized.max())).astype(np.uint8))
    sharp = small.filter(ImageFilter.UnsharpMask(radius=1, percent=50))
    padded = Image.new("L", shape[::-1])
    padded.paste(sharp, ((shape[1] - width) // 2, (shape[0] - height) // 2))
    return np.asarray(padded)


def _border(pixels: np.ndarray) -> Mask:
    """Return which pixels of an image are at its border."""
    border = np.ones(pixels.shape[:2], bool)
    border[1:-1, 1:-1] = False
    return border
