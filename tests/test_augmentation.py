"""Augmentation: flips, translations and cutout."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from fashion.models.augmentation import augment
from fashion.params import AugmentationParams

IMAGES = np.random.default_rng(1).integers(1, 256, (300, 7, 9, 3)).astype(np.uint8)
NONE = AugmentationParams(flip=False, translate=0, cutout=0)


def augmented(params: AugmentationParams, seed: int = 1) -> np.ndarray:
    changed: np.ndarray = augment(tf.constant(IMAGES), params, (seed, tf.constant(3, tf.int64))).numpy()
    assert changed.shape == IMAGES.shape
    assert changed.dtype == np.uint8
    return changed


def test_none() -> None:
    np.testing.assert_array_equal(augmented(NONE), IMAGES)


def test_flip() -> None:
    changed = augmented(NONE.model_copy(update={"flip": True}))
    mirrored = (changed == IMAGES[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (changed == IMAGES).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.1)


def test_translate() -> None:
    changed = augmented(NONE.model_copy(update={"translate": 2}))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = np.zeros((5, 5), int)
    for down, right in itertools.product(range(5), range(5)):
        found[down, right] = (changed == padded[:, down : down + 7, right : right + 9]).all(axis=(1, 2, 3)).sum()
    assert found.sum() == len(IMAGES)
    assert found.min() > 0


def test_cutout() -> None:
    changed = augmented(NONE.model_copy(update={"cutout": 3}))
    corners = set()
    for image, before in zip(changed, IMAGES, strict=True):
        hidden = image != before
        rows, columns = np.flatnonzero(hidden.any(axis=(1, 2))), np.flatnonzero(hidden.any(axis=(0, 2)))
        assert (len(rows), len(columns), hidden.sum()) == (3, 3, 27)
        assert (image[hidden] == 0).all()
        corners.add((rows[0], columns[0]))
    assert corners == set(itertools.product(range(5), range(7)))


def test_seed() -> None:
    params = AugmentationParams(flip=True, translate=1, cutout=2)
    np.testing.assert_array_equal(augmented(params, 1), augmented(params, 1))
    assert (augmented(params, 1) != augmented(params, 2)).any(axis=(1, 2, 3)).mean() > 0.9
