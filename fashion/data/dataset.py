"""Labelled images, and the folders that hold them: images.npy and labels.npy."""

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8

from fashion.errors import UserError
from fashion.files import NPY_ERRORS, atomic_write, zip_archive

Image = UInt8[np.ndarray, "height width channels"]  # 1 channel (greyscale) or 3 (RGB)
Images = UInt8[np.ndarray, "n height width channels"]
Shape = tuple[int, int, int]

BLOCK_VALUES = 4_000_000  # pixel values per block
PREDICTION_BATCH = 500  # images, of ordinary size; affects speed and memory
COPIES = 6  # of an image, at most, in test-time augmentation


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

    def sample(self, count: int) -> Images:
        """Return `count` images, or all if there are fewer, at equal distances: a split may be sorted by class."""
        count = min(count, len(self.images))
        return self.images[np.arange(count) * len(self.images) // count]


def blocks(count: int, shape: Shape) -> Iterator[slice]:
    """Yield slices that split `count` images into blocks of at most `BLOCK_VALUES` values, but at least one image."""
    size = max(1, BLOCK_VALUES // math.prod(shape))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def prediction_batch(shape: Shape) -> int:
    """Return how many images to predict at a time: fewer if they are large."""
    return max(1, min(PREDICTION_BATCH, BLOCK_VALUES // COPIES // math.prod(shape)))


def histogram(images: Images) -> Int64[np.ndarray, "channels 256"]:
    """Return how often each pixel value occurs in each channel."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for block in blocks(len(images), images.shape[1:]):
        for channel, count in enumerate(counts):
            count += np.bincount(images[block, ..., channel].ravel(), minlength=256)
    return counts


def mean_and_deviation(
    counts: Int64[np.ndarray, "channels 256"],
) -> tuple[Float64[np.ndarray, "channels"], Float64[np.ndarray, "channels"]]:
    """Return the mean and the standard deviation of the pixels of each channel, from their `histogram`."""
    values, weights = np.arange(256), counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    return mean, np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))


def save(split: Split, folder: Path, indices: Int64[np.ndarray, "m"] | None = None) -> None:
    """Write images and labels at `indices` (default: all), in that order, block by block."""
    order = np.arange(len(split.labels)) if indices is None else indices
    with atomic_write(folder / "images.npy") as file:
        file.write(npy_header(split.images.dtype, (len(order), *split.image_shape)))
        for block in blocks(len(order), split.image_shape):
            file.write(split.images[order[block]].data)
    with atomic_write(folder / "labels.npy") as file:
        np.save(file, split.labels[order])


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return the start of a .npy file, as `numpy.save` writes it; the values follow in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content := io.BytesIO(), header)
    return content.getvalue()


def npz(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> bytes:
    """Return named arrays in the .npz format, byte-identical for the same arrays."""
    contents = {}
    for name, array in arrays.items():
        np.lib.format.write_array(content := io.BytesIO(), array, allow_pickle=False)
        contents[f"{name}.npy"] = content.getvalue()
    return zip_archive(contents)


def load(folder: Path) -> Split:
    """Memory-map a split.

    Raises:
        UserError: the folder is missing or not a split.
    """
    try:
        images, labels = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in ("images", "labels")
        )
        if images.ndim != 4 or labels.shape != images.shape[:1] or {images.dtype, labels.dtype} != {np.dtype(np.uint8)}:
            arrays = (f"{array.dtype} of shape {array.shape}" for array in (images, labels))
            raise ValueError(f"images: {next(arrays)}, labels: {next(arrays)}")
    except (OSError, *NPY_ERRORS) as error:
        raise UserError(f"{folder}: not a valid split ({error}); run `dvc repro`") from error
    return Split(images, labels)
