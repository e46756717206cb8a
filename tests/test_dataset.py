"""The file format of splits."""

import struct
from pathlib import Path

import numpy as np
import pytest

from fashion.data import dataset
from fashion.errors import UserError

SPLIT = dataset.Split(np.arange(24, dtype=np.uint8).reshape(4, 2, 1, 3), np.array([0, 1, 2, 1], np.uint8))


def test_round_trip(tmp_path: Path) -> None:
    dataset.save(SPLIT, tmp_path / "split.npz")
    loaded = dataset.load(tmp_path / "split.npz")
    np.testing.assert_array_equal(loaded.images, SPLIT.images)
    np.testing.assert_array_equal(loaded.labels, SPLIT.labels)
    assert (loaded.image_shape, loaded.num_classes) == ((2, 1, 3), 3)


def test_reproducible_bytes(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        dataset.save(SPLIT, tmp_path / name)
    content = (tmp_path / "one.npz").read_bytes()
    assert content == (tmp_path / "two.npz").read_bytes()
    version, length_of_extra_fields = struct.unpack_from("<4xH22xH", content)
    assert (version, length_of_extra_fields) == (20, 0), "np.savez writes other headers with other releases of Python"


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 not an archive", b"text"])
def test_invalid_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "split.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"split\.npz: not a split .* run `dvc repro`"):
        dataset.load(path)
