"""The data audit: nearest neighbours as in scikit-learn, planted duplicates, pixel statistics."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fashion.data.audit import audit, nearest
from fashion.data.dataset import Split

CLASSES = ("even", "odd")


def split(count: int, seed: int) -> Split:
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 1)).astype(np.uint8)
    return Split(images, (np.arange(count) % 2).astype(np.uint8))


def test_nearest() -> None:
    images, others = split(1200, 1).images, split(300, 2).images
    flat = NearestNeighbors(n_neighbors=1).fit(others.reshape(300, -1).astype(float))
    _, neighbour = flat.kneighbors(images.reshape(1200, -1).astype(float))
    found = nearest(images.reshape(1200, -1), others.reshape(300, -1))
    np.testing.assert_array_equal(found, neighbour[:, 0])


def test_duplicates() -> None:
    train, validation, test = split(40, 1), split(10, 2), split(20, 3)
    train.images[7] = train.images[3]
    test.images[0] = train.images[5]  # the same image with another label
    test.images[2] = validation.images[4]
    validation.images[0] = train.images[0]
    test.images[9] = train.images[9]
    test.images[9, 0, 0, 0] ^= 8  # one of 20 pixels differs by 8: a distance of 8 / sqrt(20) = 1.789 grey levels

    found = audit(train, validation, test, CLASSES, near_duplicate_distance=2.0)
    assert found["images"]["train"] == {"even": 20, "odd": 20}
    assert found["duplicates"] == {
        "within train": 1,
        "within validation": 0,
        "within test": 0,
        "validation in train": 1,
        "test in train": 1,
        "test in validation": 1,
    }
    near = found["near_duplicates"]
    assert (near["test_images"], near["different_label"]) == (3, 1)
    assert near["closest"] == [
        {"test_image": 0, "split": "train", "image": 5, "distance": 0.0},
        {"test_image": 2, "split": "validation", "image": 4, "distance": 0.0},
        {"test_image": 9, "split": "train", "image": 9, "distance": 1.789},
    ]


def test_large_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random samples of reduced images are compared; the distance is that of the images themselves."""
    train, validation, test = split(400, 1), split(100, 2), split(200, 3)
    monkeypatch.setattr("fashion.data.audit.MAX_TEST_IMAGES", 50)
    monkeypatch.setattr("fashion.data.audit.MAX_OTHER_IMAGES", 400)
    monkeypatch.setattr("fashion.data.audit.MAX_VALUES", 6)
    test.images[:] = train.images[:200]
    test.images[:, 0, 0, 0] ^= 8
    near = audit(train, validation, test, CLASSES, near_duplicate_distance=2.0)["near_duplicates"]
    assert near["compared"] == {"test_images": 50, "other_images": 400}
    assert 30 <= near["test_images"] < 50  # 40 expected
    assert {pair["distance"] for pair in near["closest"]} == {1.789}
    assert all(pair["test_image"] == pair["image"] for pair in near["closest"])


def test_pixel_statistics() -> None:
    train = split(40, 1)
    found = audit(train, split(10, 2), split(20, 3), CLASSES, 1.0)
    assert found["pixels"] == {
        "mean": round(train.images.astype(float).mean() / 255, 6),
        "standard_deviation": round(train.images.astype(float).std() / 255, 6),
    }
