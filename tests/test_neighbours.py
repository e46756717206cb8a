"""The nearest training images are the nearest."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from fashion.serving.neighbours import Neighbours


def test_nearest_first_as_scikit_learn_finds_them() -> None:
    generator = np.random.default_rng(1)
    known = generator.normal(size=(200, 7)).astype(np.float16)
    asked = generator.normal(size=(20, 7)).astype(np.float32)
    expected = NearestNeighbors(n_neighbors=5).fit(known.astype(np.float64)).kneighbors(asked, return_distance=False)
    neighbours = Neighbours(known)
    assert [neighbours.nearest(features, 5).tolist() for features in asked] == expected.tolist()


def test_all_of_few() -> None:
    assert Neighbours(np.array([[1.0], [9.0], [5.0]])).nearest(np.array([6.0]), 3).tolist() == [2, 1, 0]
