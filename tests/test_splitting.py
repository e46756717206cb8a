"""Properties of the stratified split."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from fashion.data.splitting import stratified_split
from fashion.errors import UserError

LABELS = st.lists(st.integers(2, 40), min_size=2, max_size=6).flatmap(
    lambda counts: st.permutations([label for label, count in enumerate(counts) for _ in range(count)])
)


@given(LABELS, st.floats(0.05, 0.6), st.integers(0, 2**32 - 1))
def test_disjoint_and_stratified(labels: list[int], fraction: float, seed: int) -> None:
    array = np.array(labels, np.uint8)
    size = round(fraction * len(labels))
    try:
        training, validation = stratified_split(array, size, seed)
    except UserError:
        assume(False)
    assert sorted([*training, *validation]) == list(range(len(labels)))
    assert len(validation) == size
    exact = np.bincount(array) * size / len(labels)
    found = np.bincount(array[validation])
    assert (found >= 1).all()
    assert (exact < 1).any() or (np.abs(found - exact) < 1).all()


def test_rare_class() -> None:
    """It has one validation image, and the split stays small."""
    labels = np.repeat(np.arange(3, dtype=np.uint8), [2, 400, 398])
    _, found = stratified_split(labels, 80, seed=0)
    assert np.bincount(labels[found]).tolist() == [1, 39, 40]


def test_class_counts() -> None:
    """They are those of scikit-learn."""
    labels = np.repeat(np.arange(5, dtype=np.uint8), [100, 150, 200, 250, 300])
    _, found = stratified_split(labels, 100, seed=0)
    _, expected = next(StratifiedShuffleSplit(1, test_size=100, random_state=0).split(labels, labels))
    np.testing.assert_array_equal(np.bincount(labels[found]), np.bincount(labels[expected]))


def test_seed() -> None:
    labels = np.tile(np.arange(10, dtype=np.uint8), 20)
    first, again, other = (stratified_split(labels, 50, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("validation_images", [1, 19, 20, 30])
def test_too_few_images(validation_images: int) -> None:
    labels = np.tile(np.arange(2, dtype=np.uint8), 10)
    with pytest.raises(UserError, match=r"validation\.images"):
        stratified_split(labels, validation_images, seed=0)
