"""The IDX file format of the MNIST family of data sets, for unsigned bytes.

A file is a header (two zero bytes, the type of the elements, the number of dimensions, each dimension as a
big-endian 32-bit number) and then the elements, the last dimension fastest: http://yann.lecun.com/exdb/mnist/.
"""

import math
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fashion.data.dataset import Split
from fashion.errors import UserError

UNSIGNED_BYTE = 0x08


def encode(array: UInt8[np.ndarray, "..."]) -> bytes:
    """Return `array` as the bytes of an IDX file."""
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim])
    return header + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def decode(content: bytes | mmap, ndim: int, source: str) -> UInt8[np.ndarray, "..."]:
    """Return the array of an IDX file.

    Args:
        content: the whole file.
        ndim: the expected number of dimensions.
        source: of the content, for error messages.

    Raises:
        UserError: the content is not an IDX array of unsigned bytes with `ndim` dimensions and the length that its
            header states.
    """
    header_length = 4 + 4 * ndim
    expected = bytes([0, 0, UNSIGNED_BYTE, ndim])
    if content[:4] != expected:
        raise UserError(
            f"{source}: starts with bytes {content[:4].hex(' ') or '(none)'}, expected {expected.hex(' ')} "
            f"(an IDX file of unsigned bytes in {ndim} dimensions)"
        )
    if len(content) < header_length:
        raise UserError(f"{source}: ends inside its header, after {len(content)} of {header_length} bytes")
    shape = tuple(int(n) for n in np.frombuffer(content, dtype=">u4", count=ndim, offset=4))
    if 0 in shape:
        raise UserError(f"{source}: its header specifies the empty shape {shape}")
    if len(content) != header_length + math.prod(shape):
        raise UserError(
            f"{source}: {len(content):,} bytes long, expected {header_length + math.prod(shape):,} "
            f"for the shape {shape} that its header specifies"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header_length).reshape(shape)


def _mapped(path: Path) -> mmap | bytes:
    """Return the content of a file, read from the disk when it is used."""
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ) if path.stat().st_size else b""


def read_split(images: Path, labels: Path, classes: int) -> Split:
    """Read a split from two IDX files.

    Raises:
        UserError: a file is not an IDX file, the two differ in length, a label is not below `classes`, or a class does
            not occur.
    """
    pixels = decode(_mapped(images), ndim=3, source=str(images))
    numbers = decode(_mapped(labels), ndim=1, source=str(labels))
    if len(pixels) != len(numbers):
        raise UserError(f"{images} has {len(pixels):,} images, but {labels} has {len(numbers):,} labels")
    found = np.unique(numbers)
    if found[-1] >= classes:
        raise UserError(
            f"{labels}: has the label {found[-1]}, expected 0 to {classes - 1} (params.yaml: dataset.classes)"
        )
    if len(found) < classes:
        missing = sorted(set(range(classes)) - set(found.tolist()))
        raise UserError(
            f"{labels}: no image has the labels {missing}; every class in params.yaml: dataset.classes must occur"
        )
    return Split(pixels[..., None], numbers)
