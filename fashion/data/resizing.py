"""Resizing of images to the size of the model input: the same in training and in prediction."""

import numpy as np
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
