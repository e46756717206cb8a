"""Resizing of images to the size of the model input: the same in training and in prediction."""

import numpy as np
from jaxtyping import Float32
from PIL import Image

from fashion.data import dataset

MODES = {1: "L", 3: "RGB"}  # Pillow's name of the pixel format, by number of channels


def resize(image: Image.Image, shape: dataset.Shape) -> dataset.Image:
    """Resize an image to fit `shape`, with its aspect ratio kept, and centre it on black.

    Args:
        image: 8 bits per channel, without transparency.
        shape: height, width and number of channels of the result.
    """
    height, width, channels = shape
    scale = min(height / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    resized = image.convert(MODES[channels]).resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new(MODES[channels], (width, height))
    canvas.paste(resized, ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(canvas).reshape(shape)


def block_means(images: dataset.Images, most: int) -> Float32[np.ndarray, "n values"]:
    """Return the pixels of each image or, of an image with more than `most` values, the means of square blocks."""
    count, height, width, channels = images.shape
    side = 1
    while -(-height // side) * -(-width // side) * channels > most:
        side += 1
    if side == 1:
        return images.reshape(count, -1).astype(np.float32)
    padded = np.pad(images, [(0, 0), (0, -height % side), (0, -width % side), (0, 0)])
    blocks = padded.reshape(count, -(-height // side), side, -(-width // side), side, channels)
    means: np.ndarray = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    return means
