"""Images with their labels, and the file that carries them from stage to stage."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from fashion.errors import UserError
from fashion.files import atomic_write


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Attributes:
        images: pixel intensities, 0 to 255.
        labels: the class of each image, 0 to the number of classes - 1. Every class occurs.
    """

    images: UInt8[np.ndarray, "n height width"]
    labels: UInt8[np.ndarray, "n"]

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return self.images.shape[1], self.images.shape[2]

    @property
    def class_count(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1

    def take(self, indices: Int64[np.ndarray, "m"]) -> "Split":
        """Return the images at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])


def save(split: Split, path: Path) -> None:
    """Write a split as an uncompressed .npz file, the same bytes for the same arrays.

    `np.savez` would not do: what it writes into the zip headers differs between releases of Python.
    """
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in (("images", split.images), ("labels", split.labels)):
            np.lib.format.write_array(content := io.BytesIO(), array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())


def load(path: Path) -> Split:
    """Read a split that `save` wrote.

    Raises:
        UserError: the file is missing or not such a file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Split(arrays["images"], arrays["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a split written by the preprocess stage ({error}); run `dvc repro`") from error
