"""The IDX format: round trips, and errors for anything else."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fashion.data import idx
from fashion.errors import UserError

ARRAYS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))


@given(ARRAYS)
def test_round_trip(array: np.ndarray) -> None:
    decoded = idx.decode(idx.encode(array), array.ndim, "file")
    np.testing.assert_array_equal(decoded, array)


def test_published_layout() -> None:
    """Magic number 2049 and a big-endian count, as http://yann.lecun.com/exdb/mnist/ specifies for labels."""
    assert idx.encode(np.array([5, 0, 4], np.uint8)) == struct.pack(">ii3B", 2049, 3, 5, 0, 4)


@given(ARRAYS, st.data())
def test_wrong_length(array: np.ndarray, data: st.DataObject) -> None:
    content = idx.encode(array)
    cut = data.draw(st.integers(0, len(content) - 1))
    for wrong in (content[:cut], content + b"\0"):
        with pytest.raises(UserError, match=r"^file: "):
            idx.decode(wrong, array.ndim, "file")


@given(ARRAYS, st.integers(0, 3), st.integers(1, 255))
def test_wrong_magic_number(array: np.ndarray, position: int, change: int) -> None:
    content = bytearray(idx.encode(array))
    content[position] ^= change
    with pytest.raises(UserError, match="expected 00 00 08"):
        idx.decode(bytes(content), array.ndim, "file")


def test_empty_dimension() -> None:
    with pytest.raises(UserError, match=r"empty shape \(0, 28, 28\)"):
        idx.decode(struct.pack(">iiii", 2051, 0, 28, 28), 3, "file")


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [
        ([0, 1, 0, 1], 3, r"has 3 images, but .* has 4 labels"),
        ([0, 1, 0, 2], 4, r"has the label 2, expected 0 to 1"),
        ([0, 0, 0, 0], 4, r"no image has the labels \[1\]"),
    ],
)
def test_inconsistent_split(tmp_path: Path, labels: list[int], images: int, message: str) -> None:
    (tmp_path / "images").write_bytes(idx.encode(np.zeros((images, 2, 2), np.uint8)))
    (tmp_path / "labels").write_bytes(idx.encode(np.array(labels, np.uint8)))
    with pytest.raises(UserError, match=message):
        idx.read_split(tmp_path / "images", tmp_path / "labels", classes=2)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        idx.read_split(tmp_path / "images", tmp_path / "labels", classes=2)
