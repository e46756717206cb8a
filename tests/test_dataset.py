"""The file format of splits."""

import struct
from pathlib import Path

import numpy as np
import pytest

from fashion.data import dataset
from fashion.errors import UserError

SPLIT = dataset.Split(np.arange(24, dtype=np.uint8).reshape(4, 2, 1, 3), np.array([0, 1, 2, 1], np.uint8))


def test_round_trip(tmp_path: Path) -> None:
    dataset.save(SPLIT, tmp_path / "split")
    loaded = dataset.load(tmp_path / "split")
    np.testing.assert_array_equal(loaded.images, SPLIT.images)
    np.testing.assert_array_equal(loaded.labels, SPLIT.labels)
    assert (loaded.image_shape, loaded.num_classes) == ((2, 1, 3), 3)
    assert isinstance(loaded.images.base, np.memmap)


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 1, 2]), (2, [0, 2]), (9, [0, 1, 2, 3])])
def test_sample(count: int, expected: list[int]) -> None:
    np.testing.assert_array_equal(SPLIT.sample(count), SPLIT.images[expected])


def test_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are those of numpy.save, whatever the length of a block."""
    indices = np.array([3, 0, 2])
    np.save(tmp_path / "expected.npy", SPLIT.images[indices])
    for values in (1, 6, 12, 1000):
        monkeypatch.setattr(dataset, "BLOCK_VALUES", values)
        dataset.save(SPLIT, tmp_path / "split", indices)
        assert (tmp_path / "split" / "images.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
        assert dataset.load(tmp_path / "split").labels.tolist() == [1, 0, 2]


def test_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(1).integers(0, 200, (50, 4, 6, 3)).astype(np.uint8)
    monkeypatch.setattr(dataset, "BLOCK_VALUES", 500)
    mean, deviation = dataset.mean_and_deviation(dataset.histogram(images))
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(deviation, images.std(axis=(0, 1, 2)))


def test_npz_reproducible() -> None:
    content = dataset.npz({"labels": SPLIT.labels})
    version, length_of_extra_fields = struct.unpack_from("<4xH22xH", content)
    assert (version, length_of_extra_fields) == (20, 0), "np.savez writes other headers with other releases of Python"


NO_BRACE = dataset.npy_header(np.dtype(np.uint8), (4,)).replace(b"}", b" ")


@pytest.mark.parametrize("name", ["images", "labels"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\x93NUMPY\x01\x00", b"text", NO_BRACE, np.arange(3), np.zeros((4, 2, 1, 3))]
)
def test_invalid_file(tmp_path: Path, name: str, content: bytes | np.ndarray | None) -> None:
    dataset.save(SPLIT, tmp_path / "split")
    path = tmp_path / "split" / f"{name}.npy"
    path.unlink()
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"split: not a valid split .* run `dvc repro`"):
        dataset.load(tmp_path / "split")
