"""Augmentation: flips, translations, cutout and CutMix."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from fashion.models.augmentation import augment
from fashion.params import AugmentationParams

IMAGES = np.random.default_rng(1).integers(1, 256, (300, 7, 9, 3)).astype(np.uint8)
LABELS = np.eye(len(IMAGES), dtype=np.float32)  # so that a mixed label names both images
NONE = AugmentationParams(flip=False, translate=0, cutout=0, cutmix=0.0)


def augmented(params: AugmentationParams, seed: int = 1, step: int = 3) -> tuple[np.ndarray, np.ndarray]:
    images, labels = augment(tf.constant(IMAGES), tf.constant(LABELS), params, (seed, tf.constant(step, tf.int64)))
    assert images.shape == IMAGES.shape
    assert images.dtype == tf.uint8
    return images.numpy(), labels.numpy()


def images_of(params: AugmentationParams, seed: int = 1) -> np.ndarray:
    images, labels = augmented(params, seed)
    np.testing.assert_array_equal(labels, LABELS)
    return images


def test_none() -> None:
    np.testing.assert_array_equal(images_of(NONE), IMAGES)


def test_flip() -> None:
    changed = images_of(NONE.model_copy(update={"flip": True}))
    mirrored = (changed == IMAGES[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (changed == IMAGES).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.1)


def test_translate() -> None:
    changed = images_of(NONE.model_copy(update={"translate": 2}))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = np.zeros((5, 5), int)
    for down, right in itertools.product(range(5), range(5)):
        found[down, right] = (changed == padded[:, down : down + 7, right : right + 9]).all(axis=(1, 2, 3)).sum()
    assert found.sum() == len(IMAGES)
    assert found.min() > 0


def test_cutout() -> None:
    """Squares around all pixels, cut at the edges."""
    changed = images_of(NONE.model_copy(update={"cutout": 4}))
    spans = [{(max(0, start), min(length, start + 4)) for start in range(-2, length - 2)} for length in (7, 9)]
    found: list[set[tuple[int, int]]] = [set(), set()]
    for image, before in zip(changed, IMAGES, strict=True):
        hidden = image != before
        assert (image[hidden] == 0).all()
        lengths = []
        for axis in (0, 1):
            lines = np.flatnonzero(hidden.any(axis=(1 - axis, 2)))
            found[axis].add((lines[0], lines[-1] + 1))
            lengths.append(len(lines))
        assert hidden.sum() == lengths[0] * lengths[1] * 3
    assert found == spans


def test_cutmix() -> None:
    """The label is mixed as the pixels are; batches without CutMix have cutout."""
    shares = []
    for step in range(60):
        images, labels = augmented(NONE.model_copy(update={"cutout": 3, "cutmix": 0.5}), step=step)
        if (labels == LABELS).all() and (images != IMAGES).any():
            assert (images[images != IMAGES] == 0).all()
            continue
        pasted = (images == IMAGES[::-1]).all(axis=(0, 3))
        np.testing.assert_array_equal(images, np.where(pasted[..., None], IMAGES[::-1], IMAGES))
        assert pasted.sum() == pasted.any(axis=0).sum() * pasted.any(axis=1).sum(), "not a box"
        np.testing.assert_allclose(labels, pasted.mean() * LABELS[::-1] + (1 - pasted.mean()) * LABELS, rtol=1e-5)
        shares.append(pasted.mean())
    assert 15 < len(shares) < 45
    assert min(shares) < 0.1 < 0.5 < max(shares)


def test_seed() -> None:
    params = AugmentationParams(flip=True, translate=1, cutout=2, cutmix=0.0)
    np.testing.assert_array_equal(images_of(params, 1), images_of(params, 1))
    assert (images_of(params, 1) != images_of(params, 2)).any(axis=(1, 2, 3)).mean() > 0.9
