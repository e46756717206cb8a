"""Preprocessing of image files: from any image to a model input.

There are two methods. `resize` does what the preprocess stage does with a folder of images. `fashion-mnist` turns any
image of a piece of clothing into one like those of Fashion-MNIST, with the steps that made it: trim, resize the longest
edge, sharpen, pad, negate, convert to greyscale (H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv:1708.07747,
section 2). Its photographs had a pure white background; here the background is detected first, and the model input is
the difference from it.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter

from fashion.data import dataset
from fashion.data.images import decode
from fashion.data.resizing import resize
from fashion.errors import UserError

Background = Literal["light", "dark"]
Colours = UInt8[np.ndarray, "height width 3"]
Mask = Bool[np.ndarray, "height width"]

WORKING_SIDE = 500  # pixels; a longer edge is reduced first, for speed
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue in grey, as in ITU-R BT.601
MAX_UNEVENNESS = 40  # grey levels; an edge of the image that differs by more shows clothing, not uneven light
NEARLY_WHITE = 0.75 * 255  # mean grey level; transparent images above it are composited on black
MIN_DIFFERENCE = 0.05 * 255  # grey levels; smaller differences from the background count as none, as for the data set


def preprocess(
    content: bytes, shape: dataset.Shape, method: str, background: Background | None = None
) -> dataset.Image:
    """Return the model input for an image file.

    With the method fashion-mnist, an image of the right size is only converted to greyscale and, if its background is
    light, negated.

    Args:
        content: the bytes of an image file in one of `fashion.data.FORMATS`.
        shape: height, width and number of channels of the model input; 1 channel with the method fashion-mnist.
        method: fashion-mnist or resize.
        background: light or dark, with the method fashion-mnist; detected at the image's border by default.

    Raises:
        UserError: as for `fashion.data.images.decode`, the image shows only background, or the method does not use the
            background.
    """
    if method == "resize":
        if background is not None:
            raise UserError("the model resizes images with any background; do not set the background")
        return resize(decode(content), shape)

    def on_black(image: Image.Image) -> bool:
        return background == "dark" or (background is None and _is_nearly_white(image))

    image = decode(content, on_black)
    if image.size == shape[1::-1]:
        grey = np.asarray(image.convert("L"))[..., None]
        light = background == "light" or (background is None and (grey[_border(grey)] > 127).mean() > 0.5)
        return 255 - grey if light else grey
    image = image.convert("RGB").reduce(max(1, -(-max(image.size) // WORKING_SIDE)))
    return _fit(_trim(_difference(np.asarray(image), background)), shape)


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
    return plane.clip(0, 255).astype(np.float32)


def _trim(difference: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "h w"]:
    """Return the bounding box of all that is not background."""
    rows, columns = (np.flatnonzero(difference.any(axis=axis)) for axis in (1, 0))
    if not len(rows) or min(rows[-1] - rows[0], columns[-1] - columns[0]) < 2:
        raise UserError(
            "only background found; use an image of one piece of clothing on a plain background, or set the "
            "background to light or dark"
        )
    return difference[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fit(grey: Float[np.ndarray, "h w"], shape: dataset.Shape) -> dataset.Image:
    """Resize an image to fit `shape`, scale its brightest pixel to 255, sharpen it and pad it with black.

    The brightest pixel of nearly every image of the data set is 254 or 255.
    """
    scale = min(side / edge for side, edge in zip(shape[:2], grey.shape, strict=True))
    height, width = (max(1, round(edge * scale)) for edge in grey.shape)
    resized = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX))
    small = Image.fromarray((resized * (255 / resized.max())).astype(np.uint8))
    sharp = small.filter(ImageFilter.UnsharpMask(radius=1, percent=50))
    padded = Image.new("L", shape[1::-1])
    padded.paste(sharp, ((shape[1] - width) // 2, (shape[0] - height) // 2))
    return np.asarray(padded)[..., None]


def _border(pixels: np.ndarray) -> Mask:
    """Return which pixels of an image are at its border."""
    border = np.ones(pixels.shape[:2], bool)
    border[1:-1, 1:-1] = False
    return border
