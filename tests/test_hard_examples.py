"""Hard-example mining: which images an epoch contains."""

from typing import Any

import keras
import numpy as np
import pytest

from fashion.data.dataset import Split
from fashion.models.hard_examples import HardExampleSampler
from fashion.models.input_pipeline import batches
from fashion.models.training import training_batches
from fashion.params import AugmentationParams, HardExampleParams, TrainingParams
from tests.test_models import PARAMS

COUNT = 100
SPLIT = Split(np.arange(COUNT, dtype=np.uint8).repeat(4).reshape(COUNT, 2, 2, 1), np.arange(COUNT, dtype=np.uint8) % 2)


def settings(fraction: float, hard: float, every: int, **changes: Any) -> TrainingParams:
    mining = HardExampleParams(epoch_fraction=fraction, hard_fraction=hard, refresh_every=every)
    augmentation = AugmentationParams(flip=False, translate=0, cutout=0)
    params: TrainingParams = PARAMS.model_copy(
        update={"hard_examples": mining, "augmentation": augmentation, "batch_size": 20, **changes}
    )
    return params


HALF = settings(0.5, 0.8, 2)


class Oracle:
    """Stands in for a model for which images with a higher index are harder."""

    predictions = 0

    def predict(self, data: Any, verbose: int) -> np.ndarray:
        images = np.concatenate([batch for batch, _ in data.as_numpy_iterator()])
        np.testing.assert_array_equal(images, SPLIT.images)
        self.predictions += 1
        actual = 1 - np.arange(COUNT) / COUNT
        return np.where(np.arange(2) == SPLIT.labels[:, None], actual[:, None], 1 - actual[:, None])


def epochs(params: TrainingParams, count: int) -> tuple[list[np.ndarray], int]:
    """Return the indices of each epoch, and how often the model predicted."""
    sampler, oracle = HardExampleSampler(params, SPLIT), Oracle()
    sampler.set_model(oracle)
    indices = []
    for epoch in range(count):
        sampler.on_epoch_begin(epoch)
        indices.append(sampler.indices)
    return indices, oracle.predictions


def test_whole_epochs() -> None:
    indices, predictions = epochs(settings(1.0, 0.5, 1), 3)
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in indices)
    assert predictions == 0


@pytest.mark.parametrize(("batch_size", "images"), [(30, 90), (40, 100), (99, 99), (100, 100), (300, 100)])
def test_small_last_batch(batch_size: int, images: int) -> None:
    """A last batch of less than half the batch size is left out, unless it is the only one."""
    indices, _ = epochs(settings(1.0, 0.5, 1, batch_size=batch_size), 2)
    assert [len(set(epoch)) for epoch in indices] == [images, images]
    assert set(indices[0]) != set(indices[1]) or images == COUNT


def test_random_half() -> None:
    indices, predictions = epochs(settings(0.5, 0.0, 1), 3)
    assert all(len(set(epoch)) == 50 for epoch in indices)
    assert not np.array_equal(indices[1], indices[2])
    assert predictions == 0


def test_hardest_half() -> None:
    assert set(epochs(settings(0.5, 1.0, 1), 2)[0][1]) == set(range(50, COUNT))


def test_mixture() -> None:
    indices, predictions = epochs(HALF, 60)
    assert all(len(set(epoch)) == len(epoch) == 50 for epoch in indices)
    hardest = set(range(60, COUNT))
    assert [hardest <= set(epoch) for epoch in indices[:6]] == [False, False, True, True, True, True]
    assert predictions == 29  # before every second epoch but the first
    drawn = np.bincount(np.concatenate(indices[2:]), minlength=COUNT)[:60]
    assert drawn.min() > 0


@pytest.mark.parametrize(("seed", "same"), [(1, True), (2, False)])
def test_seed(seed: int, same: bool) -> None:
    other = HALF.model_copy(update={"seed": seed})
    assert np.array_equal(epochs(HALF, 4)[0], epochs(other, 4)[0]) == same


def test_batches() -> None:
    sampler = HardExampleSampler(HALF, SPLIT)
    data = batches(SPLIT, 20, lambda: sampler.indices)
    assert len(data) == 3
    for indices in (np.arange(50)[::-1], np.arange(50, COUNT)):
        sampler.indices = indices
        images, labels = (np.concatenate(parts) for parts in zip(*data.as_numpy_iterator(), strict=True))
        np.testing.assert_array_equal(images, SPLIT.images[indices])
        np.testing.assert_array_equal(labels.argmax(axis=1), SPLIT.labels[indices])
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches(SPLIT)]), SPLIT.images)


def test_no_tuner() -> None:
    """TensorFlow's tuner would delay the end of an epoch."""
    for data in (batches(SPLIT), training_batches(SPLIT, HALF, HardExampleSampler(HALF, SPLIT))):
        assert data.options().autotune.enabled is False


def test_order_and_augmentation() -> None:
    """They depend on the seed and the epoch, so that a training can be resumed."""
    params = HALF.model_copy(update={"augmentation": HALF.augmentation.model_copy(update={"flip": True})})
    pixels = np.arange(COUNT * 4, dtype=np.uint8).reshape(COUNT, 2, 2, 1)
    split = Split(pixels, SPLIT.labels)

    def images(epoch: int, indices: np.ndarray | None = None) -> np.ndarray:
        sampler = HardExampleSampler(params, split)
        sampler.on_epoch_begin(epoch)
        if indices is not None:
            sampler.indices = indices
        return np.concatenate([batch for batch, _ in training_batches(split, params, sampler)])

    np.testing.assert_array_equal(images(1), images(1))
    same = np.arange(50)
    assert not np.array_equal(images(0, same), images(1, same)), "augmentation"
    assert not np.array_equal(images(0).max(axis=(1, 2, 3)), images(1).max(axis=(1, 2, 3))), "order"


def test_images_of_each_epoch() -> None:
    """Keras reads the images of an epoch after the sampler has chosen them."""
    params = PARAMS.model_copy(update={"hard_examples": HALF.hard_examples, "batch_size": 20, "epochs": 4})
    read: list[np.ndarray] = []
    chosen: list[np.ndarray] = []

    class Recorded(HardExampleSampler):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            chosen.append(self.indices)

    split = Split(SPLIT.images, SPLIT.labels)
    sampler = Recorded(params, split)

    def indices() -> np.ndarray:
        read.append(sampler.indices)
        return sampler.indices

    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    model.compile(loss="categorical_crossentropy", steps_per_execution=2)
    model.fit(batches(split, 20, indices), epochs=4, shuffle=False, callbacks=[sampler], verbose=0)
    used = read[1:]  # the first call asks for the length
    assert len(used) == 4 * 3
    assert all(part is chosen[step // 3] for step, part in enumerate(used))
