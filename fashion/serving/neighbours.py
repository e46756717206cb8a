"""The training images that a model takes for most like a picture."""

import numpy as np
from jaxtyping import Float, Int64


class Neighbours:
    """Training images, by what the last layer of a model sees of them."""

    def __init__(self, features: Float[np.ndarray, "n features"]) -> None:
        self._features = features.astype(np.float32)
        self._squares = (self._features**2).sum(axis=1)

    def nearest(self, features: Float[np.ndarray, "features"], count: int) -> Int64[np.ndarray, "count"]:
        """Return the indices of the `count` images with the least Euclidean distance in features, nearest first."""
        distances = self._squares - self._features @ (2 * features.astype(np.float32))  # squared, less a constant
        closest = np.argpartition(distances, count - 1)[:count]
        return closest[np.argsort(distances[closest], kind="stable")]
