"""Out-of-distribution (OOD) detection: is an image like the training images?

A softmax is confident even on inputs unlike its training data. The detector compares an image with the training images
by its pixels, which detects noise, and by the features of the model's last layer, which detects other kinds of images.
"""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

from fashion.data.dataset import Images, Split, blocks, npz
from fashion.data.resizing import block_means

Vectors = Float[np.ndarray, "n size"]
Labels = UInt8[np.ndarray, "n"]

EPSILON = 1e-30
REFERENCE_IMAGES = 10_000  # enough for the detector; the features of all training images take minutes
MAX_VALUES = 4096  # per image, of its pixels and of its features; the covariance of more would be slow and large
SHRINKAGE = 0.001  # of the covariance towards a multiple of the identity: some pixels are always black


def reference(train: Split) -> Split:
    """Return every n-th training image, at most `REFERENCE_IMAGES`: those that the detector compares with."""
    step = math.ceil(len(train.images) / REFERENCE_IMAGES)
    return replace(train, images=train.images[::step], labels=train.labels[::step])


@dataclass(frozen=True)
class TiedGaussians:
    """Gaussian distributions with a shared covariance.

    Attributes:
        means: of each distribution.
        whitening: the matrix that vectors are multiplied by to have the identity as their covariance.
    """

    means: Float[np.ndarray, "groups size"]
    whitening: Float[np.ndarray, "size size"]

    def distances(self, vectors: Vectors) -> Float[np.ndarray, "n"]:
        """Return the squared Mahalanobis distance of each vector to the nearest mean."""
        # Subtract a mean first: far from the origin, squares in float32 would hide small distances.
        whitened, means = ((points - self.means[0]) @ self.whitening for points in (vectors, self.means))
        to_means = (means**2).sum(axis=1) - 2 * whitened @ means.T
        squared: np.ndarray = (whitened**2).sum(axis=1) + to_means.min(axis=1)
        return squared


class Moments:
    """Counts, sums and outer products of vectors in groups, accumulated batch by batch.

    They are relative to the first vector, so that little precision is lost where all vectors are alike.
    """

    def __init__(self, groups: int) -> None:
        """Start empty."""
        self._counts, self._sums, self._products = np.zeros(groups), np.zeros((groups, 1)), np.zeros((1, 1))
        self._origin: Float64[np.ndarray, size] | None = None

    def add(self, vectors: Vectors, groups: Labels) -> None:
        """Add vectors; `groups` has the group of each, from 0."""
        if self._origin is None:
            self._origin = vectors[0].astype(np.float64)
        values = vectors - self._origin
        members = np.eye(len(self._counts))[groups]
        self._counts = self._counts + members.sum(axis=0)
        self._sums = self._sums + members.T @ values
        self._products = self._products + values.T @ values

    def fit_groups(self) -> TiedGaussians:
        """Return a distribution per group that has vectors."""
        return self._fit(self._counts, self._sums)

    def fit_all(self) -> TiedGaussians:
        """Return one distribution of all vectors."""
        return self._fit(self._counts.sum(keepdims=True), self._sums.sum(axis=0, keepdims=True))

    def _fit(self, counts: Float64[np.ndarray, "k"], sums: Float64[np.ndarray, "k size"]) -> TiedGaussians:
        counts, sums = counts[counts > 0], sums[counts > 0]
        means = sums / counts[:, None]
        covariance = (self._products - means.T @ sums) / counts.sum()
        shrinkage = SHRINKAGE * covariance.diagonal().mean() + EPSILON  # not 0 if all vectors are equal
        covariance += shrinkage * np.eye(len(covariance))
        whitening = np.linalg.cholesky(np.linalg.inv(covariance))
        return TiedGaussians((means + self._origin).astype(np.float32), whitening.astype(np.float32))


def _thinned(features: Vectors) -> Vectors:
    return features[:, :: math.ceil(features.shape[1] / MAX_VALUES)]


@dataclass(frozen=True)
class OODDetector:
    """Detects images that are unlike the training images.

    Attributes:
        pixels: of the reference images, reduced to at most `MAX_VALUES` values, a Gaussian per class.
        features: of the reference images, every n-th so that there are at most `MAX_VALUES`, a Gaussian per class.
        background: of these features of all reference images, a single Gaussian.
        thresholds: the distances in pixels and in features above which an image is out of distribution.
    """

    pixels: TiedGaussians
    features: TiedGaussians
    background: TiedGaussians
    thresholds: Float64[np.ndarray, "2"]

    @classmethod
    def fit(cls, batches: Iterable[tuple[Images, Vectors, Labels]], classes: int) -> "OODDetector":
        """Return a detector without thresholds yet.

        Args:
            batches: the reference images, their features and their classes.
            classes: the number of classes.
        """
        pixel_moments, feature_moments = Moments(classes), Moments(classes)
        for images, features, labels in batches:
            pixel_moments.add(block_means(images, MAX_VALUES), labels)
            feature_moments.add(_thinned(features), labels)
        return cls(
            pixel_moments.fit_groups(), feature_moments.fit_groups(), feature_moments.fit_all(), np.full(2, np.inf)
        )

    def calibrate(self, images: Images, features: Vectors, rate: float) -> "OODDetector":
        """Return the detector with thresholds such that each of its two distances rejects this rate of the images.

        The number of rejected images is rounded down.
        """
        distances = self.distances(images, features)
        return replace(self, thresholds=np.quantile(distances, 1 - rate, axis=0, method="inverted_cdf"))

    def distances(self, images: Images, features: Vectors) -> Float64[np.ndarray, "n 2"]:
        """Return the distance of each image to the reference images, in pixels and in features.

        The first is the squared Mahalanobis distance to the nearest class. The second is that distance minus the one to
        all reference images (J. Ren et al., A simple fix to Mahalanobis distance for improving near-OOD detection,
        arXiv:2106.09022).
        """
        features = _thinned(features)
        relative = self.features.distances(features) - self.background.distances(features)
        parts = (block_means(images[block], MAX_VALUES) for block in blocks(len(images), images.shape[1:]))
        pixels = np.concatenate([self.pixels.distances(part) for part in parts])
        return np.stack([pixels, relative], axis=1).astype(np.float64)

    def in_distribution(self, images: Images, features: Vectors) -> Bool[np.ndarray, "n"]:
        """Return whether each image is within both thresholds."""
        within: np.ndarray = (self.distances(images, features) - self.thresholds).max(axis=1) <= 0
        return within

    def to_bytes(self) -> bytes:
        """Return the content of a .npz file, byte-identical for equal detectors."""
        parts = {"pixels": self.pixels, "features": self.features, "background": self.background}
        arrays = {f"{name}.{key}": value for name, part in parts.items() for key, value in vars(part).items()}
        return npz({"thresholds": self.thresholds, **arrays})

    @classmethod
    def from_bytes(cls, content: bytes) -> "OODDetector":
        """Return the detector that `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            pixels, features, background = (
                TiedGaussians(arrays[f"{name}.means"], arrays[f"{name}.whitening"])
                for name in ("pixels", "features", "background")
            )
            return cls(pixels, features, background, arrays["thresholds"])
