"""An epoch sees the images that it should: all, some at random, or most of the hardest."""

from typing import Any

import numpy as np
import pytest

from fashion.data.dataset import Split
from fashion.models import training
from fashion.models.hard_examples import HardExampleSampler
from fashion.params import Augmentation, Selection
from tests.test_models import DNN

COUNT = 100
SPLIT = Split(np.arange(COUNT, dtype=np.uint8).repeat(4).reshape(COUNT, 2, 2), np.arange(COUNT, dtype=np.uint8) % 2)
BATCHES = training.batches(SPLIT, DNN)
HALF = Selection(share=0.5, hardest=0.8, every=2)


class Oracle:
    """Stands in for a model to which the images are the harder, the higher their index."""

    asked = 0

    def predict(self, batches: Any, verbose: int) -> np.ndarray:
        assert (batches, verbose) == (BATCHES, 0)
        self.asked += 1
        given = 1 - np.arange(COUNT) / COUNT
        return np.where(np.arange(2) == SPLIT.labels[:, None], given[:, None], 1 - given[:, None])


def epochs(params: Selection, count: int, seed: int = 1) -> tuple[list[np.ndarray], int]:
    """Return the indices that each epoch sees, and how often the model was asked."""
    selector, oracle = HardExampleSampler(params, SPLIT, BATCHES, seed), Oracle()
    selector.set_model(oracle)
    seen = []
    for epoch in range(count):
        selector.on_epoch_begin(epoch)
        seen.append(selector.chosen.numpy())
    return seen, oracle.asked


def test_all() -> None:
    seen, asked = epochs(Selection(share=1.0, hardest=0.5, every=1), 3)
    assert all(sorted(chosen) == list(range(COUNT)) for chosen in seen)
    assert asked == 0


def test_none_of_the_hardest() -> None:
    seen, asked = epochs(Selection(share=0.5, hardest=0.0, every=1), 3)
    assert all(len(set(chosen)) == 50 for chosen in seen)
    assert not np.array_equal(seen[1], seen[2])
    assert asked == 0


def test_nothing_but_the_hardest() -> None:
    seen, _ = epochs(Selection(share=0.5, hardest=1.0, every=1), 2)
    assert set(seen[1]) == set(range(50, COUNT))


def test_no_image_twice() -> None:
    assert all(len(set(chosen)) == len(chosen) == 50 for chosen in epochs(HALF, 6)[0])


def test_the_hardest_once_it_is_known_which_they_are() -> None:
    seen, asked = epochs(HALF, 6)
    hardest = set(range(60, COUNT))
    assert [hardest <= set(chosen) for chosen in seen] == [False, False, True, True, True, True]
    assert asked == 2  # before the third and the fifth epoch


def test_the_others_are_drawn_anew() -> None:
    seen, _ = epochs(HALF, 60)
    drawn = np.bincount(np.concatenate(seen[2:]), minlength=COUNT)[:60]
    assert drawn.min() > 0


@pytest.mark.parametrize(("seed", "same"), [(1, True), (2, False)])
def test_the_seed_decides(seed: int, same: bool) -> None:
    assert np.array_equal(epochs(HALF, 4)[0], epochs(HALF, 4, seed)[0]) == same


def test_the_batches_follow_the_choice() -> None:
    params = DNN.model_copy(update={"augmentation": Augmentation(flip=False, shift=0, cutout=0), "batch_size": 20})
    selector = HardExampleSampler(HALF, SPLIT, BATCHES, 1)
    batches = training.batches(SPLIT, params, training=True, chosen=selector.chosen)
    assert len(batches) == 3
    for wanted in (np.arange(50), np.arange(50, COUNT)):
        selector.chosen.assign(wanted)
        images = np.concatenate([batch for batch, _ in batches.as_numpy_iterator()])
        assert sorted(images[:, 0, 0]) == list(wanted)
        assert list(images[:, 0, 0]) != list(wanted)
