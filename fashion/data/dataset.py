"""Labelled images, and the files (.npz) that hold them."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from fashion.errors import UserError
from fashion.files import atomic_write, zip_archive

Image = UInt8[np.ndarray, "height width channels"]  # 1 channel (greyscale) or 3 (RGB)
Images = UInt8[np.ndarray, "n height width channels"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Attributes:
        images: pixel values, 0 to 255.
        labels: class of each image, 0 to number of classes - 1; every class occurs.
    """

    images: Images
    labels: UInt8[np.ndarray, "n"]

    @property
    def image_shape(self) -> Shape:
        """Height and width of an image, in pixels, and its number of channels."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1

    def take(self, indices: Int64[np.ndarray, "m"]) -> "Split":
        """Return the images at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])


def save(split: Split, path: Path) -> None:
    """Write a split."""
    with atomic_write(path) as file:
        file.write(npz({"images": split.images, "labels": split.labels}))


def npz(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> bytes:
    """Return named arrays in the .npz format, byte-identical for the same arrays."""
    contents = {}
    for name, array in arrays.items():
        np.lib.format.write_array(content := io.BytesIO(), array, allow_pickle=False)
        contents[f"{name}.npy"] = content.getvalue()
    return zip_archive(contents)


def load(path: Path) -> Split:
    """Read a split.

    Raises:
        UserError: the file is missing or not a split.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Split(arrays["images"], arrays["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a split written by the preprocess stage ({error}); run `dvc repro`") from error
