"""From any picture of a piece of clothing to what the models know: small, grey, bright on black, filling the frame.

The steps are those by which the data set was made: trim, resize the longest edge, sharpen, pad, negate, in grey
(H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv:1708.07747, section 2). They began with photographs on pure
white; here the background is found first, and what counts is the difference from it.
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

from fashion.errors import UserError

Background = Literal["light", "dark"]
Colours = UInt8[np.ndarray, "height width 3"]

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 32 * 2**20
MAX_SIDE = 16_000  # pixels
MAX_PIXELS = 64_000_000
WORKING_SIDE = 500  # pixels, the most that the longest edge is worked on with
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue in grey, as in ITU-R BT.601
COSTLY = re.compile(rb"\xff(?:\xda\0[\x08\x0a\x0c\x0e]|\xe1..Exif\0\0)", re.DOTALL)  # a JPEG's scans and Exif parts
MAX_COSTLY = 100  # of which a file has a dozen; as many as fit into the limit would take an hour to decode
UPRIGHT = {  # what undoes an Exif orientation; Pillow's own also writes the Exif data anew, and may fail
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DAMAGE = (  # what Pillow's decoders raise on damaged files
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
UNEVEN = 40  # grey levels by which the light at one side may differ from the whole border's
NEARLY_WHITE = 0.75 * 255  # mean grey of a transparent picture beyond which it is laid on black
CLOSE = 0.05 * 255  # a difference of colour that is none, as for the data set

Image.MAX_IMAGE_PIXELS = None  # the limit is the one above: Pillow's own warns at one size and fails at another


def prepare(
    content: bytes, shape: tuple[int, int], background: Background | None = None
) -> UInt8[np.ndarray, "height width"]:
    """Return what a model sees of a picture.

    Args:
        content: of a PNG, JPEG or WebP file.
        shape: height and width that the model wants, in pixels. A picture that has them is taken as it is.
        background: what the picture has behind the clothing; by default, what its border shows.

    Raises:
        UserError: as for `read`, or a picture of another size shows nothing but background.
    """
    image = read(content, background)
    if image.size == shape[::-1]:
        grey = np.asarray(image.convert("L"))
        light = background == "light" or (background is None and (grey[_edge(grey)] > 127).mean() > 0.5)
        return 255 - grey if light else grey
    image = image.convert("RGB").reduce(max(1, -(-max(image.size) // WORKING_SIDE)))
    return _framed(_trimmed(_difference(np.asarray(image), background)), shape)


def read(content: bytes, background: Background | None = None) -> Image.Image:
    """Read a picture, the right way up, in 8 bits: of mode L or RGB.

    Where it is transparent, it is laid on white, or on black if its background is dark or if it is nearly white itself.

    Raises:
        UserError: it is no picture in one of `FORMATS`, damaged, animated, or beyond the limits.
    """
    if len(content) > MAX_BYTES:
        raise UserError(f"{len(content):,} bytes; at most {MAX_BYTES:,} are read: make it smaller")
    if (count := len(COSTLY.findall(content))) > MAX_COSTLY:
        raise UserError(f"{count:,} scans and Exif parts; at most {MAX_COSTLY} are read: save the picture anew")
    try:
        with warnings.catch_warnings(action="ignore"):  # of a part that is not the picture, such as its Exif data
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            _check(image)
            return _decoded(image, background)
    except UnidentifiedImageError as error:
        what = "empty" if not content else "not a picture, or in another format"
        raise UserError(f"{what}; PNG, JPEG and WebP are read") from error
    except DAMAGE as error:
        raise UserError(f"a damaged picture ({error}); save it anew from where it came from") from error


def _check(image: Image.Image) -> None:
    """Refuse, before it is decoded, a picture that is too large, too small or not one."""
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise UserError(
            f"{width:,} x {height:,} pixels; at most {MAX_PIXELS:,} in all and {MAX_SIDE:,} a side are read: "
            "make it smaller"
        )
    if min(width, height) < 8:
        raise UserError(f"{width} x {height} pixels; too small to show anything: take a larger picture")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a photograph with others of its kind
        raise UserError("an animation; save one of its frames as a picture")


def _decoded(image: Image.Image, background: Background | None) -> Image.Image:
    """Return all of a picture that is open, turned and converted as `read` says."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DAMAGE:  # of the Exif data, which are not the picture
        orientation = None
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    if image.mode.startswith("I"):  # 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        dark = background == "dark" or (background is None and _nearly_white(image))
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black" if dark else "white"), image)
    return image if image.mode == "L" else image.convert("RGB")


def _nearly_white(image: Image.Image) -> bool:
    """Tell whether what can be seen of a transparent picture would hardly stand out from white."""
    pixels = np.asarray(image.resize((64, 64), Image.Resampling.BOX), np.float32)
    opacity = pixels[..., 3]
    return bool(((pixels[..., :3] @ LUMA) * opacity).sum() > NEARLY_WHITE * opacity.sum())


def _difference(colours: Colours, background: Background | None) -> Float[np.ndarray, "height width"]:
    """Return how much each pixel differs from the background, where it does: 0 to some 255 grey levels."""
    seen = _edge(colours)  # pixels that show the background
    if background is not None:
        seen &= (colours @ LUMA > 127) == (background == "light")
    told = np.full(3, 255 if background == "light" else 0, np.float32)
    behind = _plane(colours, seen) if seen.any() else told
    difference = np.abs(colours - behind) @ LUMA
    noise = float(np.median(difference[seen])) if seen.any() else 0.0
    smooth = np.asarray(Image.fromarray(difference.astype(np.uint8)).filter(ImageFilter.MedianFilter(5)))
    grey = behind @ LUMA
    return np.where(smooth > max(CLOSE, 3 * noise), difference * 255 / np.maximum(grey, 255 - grey), np.float32(0))


def _plane(colours: Colours, seen: Bool[np.ndarray, "height width"]) -> Float[np.ndarray, "height width 3"]:
    """Return the colour behind the clothing at each pixel: a plane through the medians of what is seen at the sides.

    A side whose colour differs by more than `UNEVEN` from that of the whole border shows clothing; it is left out.
    """
    border = np.median(colours[seen], axis=0)

    def median(side: tuple[int | slice, ...]) -> np.ndarray:
        found = np.median(colours[side][seen[side]], axis=0) if seen[side].any() else border
        return np.asarray(found if np.abs(found - border).max() <= UNEVEN else border)

    everything = slice(None)
    top, bottom, left, right = (median(side) for side in ((0,), (-1,), (everything, 0), (everything, -1)))
    height, width = colours.shape[:2]
    down, across = np.linspace(-0.5, 0.5, height)[:, None, None], np.linspace(-0.5, 0.5, width)[None, :, None]
    plane: np.ndarray = (top + bottom + left + right) / 4 + (bottom - top) * down + (right - left) * across
    return plane.astype(np.float32)


def _trimmed(difference: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "h w"]:
    """Return the part that holds all that is not background."""
    rows, columns = (np.flatnonzero(difference.any(axis=axis)) for axis in (1, 0))
    if not len(rows) or min(rows[-1] - rows[0], columns[-1] - columns[0]) < 2:
        raise UserError(
            "nothing to see but background; take a picture of one piece of clothing on a plain background, or say "
            "whether that is light or dark"
        )
    return difference[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _framed(grey: Float[np.ndarray, "h w"], shape: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    """Return a picture resized until an edge fills the frame, its brightest pixel at 255, sharpened, amid black.

    The brightest pixel of nearly every image of the data set is 254 or 255.
    """
    scale = min(frame / edge for frame, edge in zip(shape, grey.shape, strict=True))
    height, width = (max(1, round(edge * scale)) for edge in grey.shape)
    resized = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX))
    small = Image.fromarray((resized * (255 / resized.max())).astype(np.uint8))
    sharp = small.filter(ImageFilter.UnsharpMask(radius=1, percent=50))
    framed = Image.new("L", shape[::-1])
    framed.paste(sharp, ((shape[1] - width) // 2, (shape[0] - height) // 2))
    return np.asarray(framed)


def _edge(pixels: np.ndarray) -> Bool[np.ndarray, "height width"]:
    """Tell for each pixel of a picture whether it is at an edge."""
    edge = np.ones(pixels.shape[:2], bool)
    edge[1:-1, 1:-1] = False
    return edge
