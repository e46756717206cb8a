"""Out-of-distribution detection."""

import io

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from fashion.data.dataset import Split
from fashion.data.resizing import block_means
from fashion.export import ood
from fashion.export.ood import Moments, OODDetector
from fashion.files import zip_archive
from tests.conftest import draw_lines

TRAIN, VALIDATION = Split(*draw_lines(900, 1)), Split(*draw_lines(300, 2))
NOISE = np.random.default_rng(3).integers(0, 256, (100, 20, 24, 1), dtype=np.uint8)


def features(images: np.ndarray) -> np.ndarray:
    """Stand in for a network: two features that separate the lines, and one that does not."""
    pixels = images.astype(np.float32) / 255
    columns, rows = pixels.mean(axis=(1, 3)).max(axis=1), pixels.mean(axis=(2, 3)).max(axis=1)
    return np.stack([columns, rows, pixels.mean(axis=(1, 2, 3))], axis=1)


UNCALIBRATED = OODDetector.fit(
    ((part.images, features(part.images), part.labels) for part in map(TRAIN.take, np.split(np.arange(900), 9))), 3
)


def calibrated(rate: float) -> OODDetector:
    return UNCALIBRATED.calibrate(VALIDATION.images, features(VALIDATION.images), rate)


def test_mahalanobis_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ood, "SHRINKAGE", 0.0)
    random = np.random.default_rng(1)
    vectors, groups = random.normal(size=(200, 4)) @ random.normal(size=(4, 4)), np.arange(200, dtype=np.uint8) % 3
    moments = Moments(3)
    moments.add(vectors[:150], groups[:150])
    moments.add(vectors[150:], groups[150:])
    distances = moments.fit_groups().distances(vectors[:20])
    means = [vectors[groups == group].mean(axis=0) for group in range(3)]
    inverse = np.linalg.inv(np.cov((vectors - np.stack(means)[groups]).T, bias=True))
    expected = [min(mahalanobis(vector, mean, inverse) ** 2 for mean in means) for vector in vectors[:20]]
    np.testing.assert_allclose(distances, expected, rtol=1e-6)


def test_vectors_far_from_the_origin() -> None:
    """As for images with a white background: squares of large float32 values hide the distances."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(500, 20)).astype(np.float32)
    moments, moved = Moments(1), Moments(1)
    for one, offset in ((moments, 0), (moved, 5000)):
        one.add(vectors + offset, np.zeros(500, np.uint8))
    found = moved.fit_all().distances(vectors[:50] + 5000)
    np.testing.assert_allclose(found, moments.fit_all().distances(vectors[:50]), rtol=0.01)


def test_group_without_vectors() -> None:
    """A class may be so rare that no reference image shows it."""
    moments, fewer = Moments(3), Moments(2)
    vectors = np.random.default_rng(1).normal(size=(50, 4))
    for one in (moments, fewer):
        one.add(vectors, np.arange(50, dtype=np.uint8) % 2)
    expected = fewer.fit_groups().distances(vectors)
    np.testing.assert_array_equal(moments.fit_groups().distances(vectors), expected)


@pytest.mark.parametrize(("most", "step"), [(899, 2), (900, 1), (400, 3)])
def test_reference_images(monkeypatch: pytest.MonkeyPatch, most: int, step: int) -> None:
    monkeypatch.setattr(ood, "REFERENCE_IMAGES", most)
    reference = ood.reference(TRAIN)
    np.testing.assert_array_equal(reference.images, TRAIN.images[::step])
    np.testing.assert_array_equal(reference.labels, TRAIN.labels[::step])


def test_constant_vectors() -> None:
    constant = np.full((20, 3), 7.7, np.float32)
    moments = Moments(1)
    moments.add(constant, np.zeros(20, np.uint8))
    np.testing.assert_array_equal(moments.fit_all().distances(constant), 0)


def test_rate() -> None:
    detector = calibrated(0.05)
    above = detector.distances(VALIDATION.images, features(VALIDATION.images)) > detector.thresholds
    assert above.sum(axis=0).tolist() == [15, 15]


def test_rate_of_less_than_an_image() -> None:
    few = VALIDATION.take(np.arange(10))
    detector = UNCALIBRATED.calibrate(few.images, features(few.images), 0.09)
    assert detector.in_distribution(few.images, features(few.images)).all()


def test_in_distribution() -> None:
    detector = calibrated(0.01)
    assert detector.in_distribution(VALIDATION.images, features(VALIDATION.images)).mean() > 0.97
    assert not detector.in_distribution(NOISE, features(NOISE)).any()
    squares = np.zeros((1, 20, 24, 1), np.uint8)
    squares[:, 5:15, 5:15] = 220
    assert not detector.in_distribution(squares, features(squares)).any()


def test_large_images() -> None:
    """The detector compares the means of blocks, the last of which may be incomplete."""
    images = np.random.default_rng(4).integers(0, 256, (9, 5, 8, 3)).astype(np.uint8)
    padded = np.pad(images.astype(np.float32), ((0, 0), (0, 1), (0, 1), (0, 0)))
    expected = [padded[:, i : i + 3, j : j + 3].mean(axis=(1, 2)) for i in (0, 3) for j in (0, 3, 6)]
    np.testing.assert_allclose(block_means(images, 30), np.concatenate(expected, axis=1), rtol=1e-6)


def test_uncalibrated() -> None:
    assert UNCALIBRATED.in_distribution(NOISE, features(NOISE)).all()


def test_bytes() -> None:
    detector, images = calibrated(0.01), VALIDATION.images
    loaded = OODDetector.from_bytes(detector.to_bytes())
    assert loaded.to_bytes() == detector.to_bytes()
    np.testing.assert_array_equal(
        loaded.distances(images, features(images)), detector.distances(images, features(images))
    )


def test_no_pickled_objects() -> None:
    np.lib.format.write_array(array := io.BytesIO(), np.array([print], dtype=object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded when allow_pickle=False"):
        OODDetector.from_bytes(zip_archive({"pixels.means.npy": array.getvalue()}))
