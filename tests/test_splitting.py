"""Properties of the stratified split, whatever the labels."""

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
def test_every_image_is_on_one_side_and_every_class_in_proportion(labels: list[int], share: float, seed: int) -> None:
    array = np.array(labels, np.uint8)
    size = round(share * len(labels))
    try:
        training, validation = stratified_split(array, size, seed)
    except UserError:
        assume(False)
    assert sorted([*training, *validation]) == list(range(len(labels)))
    assert len(validation) == size
    exact = np.bincount(array) * size / len(labels)
    assert (np.abs(np.bincount(array[validation]) - exact) < 1).all()


def test_the_share_of_each_class_is_scikit_learns() -> None:
    labels = np.repeat(np.arange(5, dtype=np.uint8), [100, 150, 200, 250, 300])
    _, ours = stratified_split(labels, 100, seed=0)
    _, theirs = next(StratifiedShuffleSplit(1, test_size=100, random_state=0).split(labels, labels))
    np.testing.assert_array_equal(np.bincount(labels[ours]), np.bincount(labels[theirs]))


def test_the_seed_decides() -> None:
    labels = np.tile(np.arange(10, dtype=np.uint8), 20)
    first, again, other = (stratified_split(labels, 50, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("validation_images", [1, 19, 20, 30])
def test_a_class_without_an_image_on_one_side_is_refused(validation_images: int) -> None:
    labels = np.tile(np.arange(2, dtype=np.uint8), 10)
    with pytest.raises(UserError, match=r"validation\.images"):
        stratified_split(labels, validation_images, seed=0)
