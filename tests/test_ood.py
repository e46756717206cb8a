"""What is like the training images is familiar, and other pictures are not."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from fashion.data.dataset import Split
from fashion.serving import familiarity
from fashion.export.ood import TiedGaussians, OODDetector
from tests.conftest import draw_lines

TRAIN, VALIDATION = Split(*draw_lines(900, 1)), Split(*draw_lines(300, 2))


def features(images: np.ndarray) -> np.ndarray:
    """Stand in for a network: what tells the lines apart, and a number that does not."""
    pixels = images.astype(np.float32) / 255
    columns, rows = pixels.mean(axis=1).max(axis=1), pixels.mean(axis=2).max(axis=1)
    return np.stack([columns, rows, pixels.mean(axis=(1, 2))], axis=1)


def test_distance_is_mahalanobis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(familiarity, "SHRINKAGE", 0.0)
    random = np.random.default_rng(1)
    vectors, groups = random.normal(size=(200, 4)) @ random.normal(size=(4, 4)), np.arange(200, dtype=np.uint8) % 3
    found = TiedGaussians.of(vectors, groups).distances(vectors[:20])
    centres = [vectors[groups == group].mean(axis=0) for group in range(3)]
    inverse = np.linalg.inv(np.cov((vectors - np.stack(centres)[groups]).T, bias=True))
    expected = [min(mahalanobis(vector, centre, inverse) ** 2 for centre in centres) for vector in vectors[:20]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_numbers_that_are_all_the_same() -> None:
    same = np.zeros((20, 3), np.float32)
    np.testing.assert_array_equal(TiedGaussians.of(same, np.zeros(20, np.uint8)).distances(same), 0)


def fitted(share: float) -> OODDetector:
    known = OODDetector.of(TRAIN.images, features(TRAIN.images), TRAIN.labels)
    return known.limited(VALIDATION.images, features(VALIDATION.images), share)


def test_the_share_that_is_left_out() -> None:
    distances = fitted(0.05).distances(VALIDATION.images, features(VALIDATION.images))
    beyond = distances > fitted(0.05).limits
    assert beyond.sum(axis=0).tolist() == [15, 15]


def test_other_pictures_are_not_familiar() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (100, 20, 24), dtype=np.uint8)
    known = fitted(0.01)
    assert known.familiar(VALIDATION.images, features(VALIDATION.images)).mean() > 0.97
    assert not known.familiar(noise, features(noise)).any()
    squares = np.zeros((1, 20, 24), np.uint8)
    squares[:, 5:15, 5:15] = 220
    assert not known.familiar(squares, features(squares)).any()


def test_without_limits_everything_is() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (100, 20, 24), dtype=np.uint8)
    known = OODDetector.of(TRAIN.images, features(TRAIN.images), TRAIN.labels)
    assert known.familiar(noise, features(noise)).all()


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    known, images, path = fitted(0.01), VALIDATION.images, tmp_path / "ood.npz"
    with path.open("wb") as file:
        known.save(file)
    loaded = OODDetector.load(path.read_bytes())
    np.testing.assert_array_equal(loaded.limits, known.limits)
    np.testing.assert_array_equal(loaded.distances(images, features(images)), known.distances(images, features(images)))
