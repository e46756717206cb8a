"""Out-of-distribution (OOD) detection: is an image like the training images?

A softmax is confident even on inputs unlike its training data. The detector compares an image with the training images
by its pixels, which detects noise, and by the features of the model's last layer, which detects other kinds of images.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

from fashion.data.dataset import Images, npz

Vectors = Float[np.ndarray, "n size"]
Labels = UInt8[np.ndarray, "n"]

EPSILON = 1e-30
MAX_VALUES = 4096  # per image, in the comparison by pixels; the covariance of more would be slow and large
SHRINKAGE = 0.001  # of the covariance towards a multiple of the identity: some pixels are always black


@dataclass(frozen=True)
class TiedGaussians:
    """Gaussian distributions with a shared covariance.

    Attributes:
        means: of each distribution.
        whitening: the matrix that vectors are multiplied by to have the identity as their covariance.
    """

    means: Float[np.ndarray, "groups size"]
    whitening: Float[np.ndarray, "size size"]

    @classmethod
    def fit(cls, vectors: Vectors, groups: Labels) -> "TiedGaussians":
        """Return a distribution per group; `groups` has the group of each vector, from 0."""
        means = np.stack([vectors[groups == group].mean(axis=0) for group in range(int(groups.max()) + 1)])
        differences = vectors - means[groups]
        covariance = differences.T @ differences / len(vectors)
        shrinkage = SHRINKAGE * covariance.diagonal().mean() + EPSILON  # not 0 if all vectors are equal
        covariance += shrinkage * np.eye(len(covariance), dtype=vectors.dtype)
        return cls(means, np.linalg.cholesky(np.linalg.inv(covariance)))

    def distances(self, vectors: Vectors) -> Float[np.ndarray, "n"]:
        """Return the squared Mahalanobis distance of each vector to the nearest mean."""
        whitened, means = vectors @ self.whitening, self.means @ self.whitening
        to_means = (means**2).sum(axis=1) - 2 * whitened @ means.T
        squared: np.ndarray = (whitened**2).sum(axis=1) + to_means.min(axis=1)
        return squared


@dataclass(frozen=True)
class OODDetector:
    """Detects images that are unlike the training images.

    Attributes:
        pixels: of the training images, reduced to at most `MAX_VALUES` values, a Gaussian per class.
        features: of the training images, a Gaussian per class.
        background: of the features of all training images, a single Gaussian.
        thresholds: the distances in pixels and in features above which an image is out of distribution.
    """

    pixels: TiedGaussians
    features: TiedGaussians
    background: TiedGaussians
    thresholds: Float64[np.ndarray, "2"]

    @classmethod
    def fit(cls, images: Images, features: Vectors, labels: Labels) -> "OODDetector":
        """Return a detector for these training images, without thresholds yet."""
        return cls(
            TiedGaussians.fit(_flat(images), labels),
            TiedGaussians.fit(features, labels),
            TiedGaussians.fit(features, np.zeros_like(labels)),
            np.full(2, np.inf),
        )

    def calibrate(self, images: Images, features: Vectors, rate: float) -> "OODDetector":
        """Return the detector with thresholds such that each of its two distances rejects this rate of the images."""
        return replace(self, thresholds=np.quantile(self.distances(images, features), 1 - rate, axis=0))

    def distances(self, images: Images, features: Vectors) -> Float64[np.ndarray, "n 2"]:
        """Return the distance of each image to the training images, in pixels and in features.

        The first is the squared Mahalanobis distance to the nearest class. The second is that distance minus the one to
        all training images (J. Ren et al., A simple fix to Mahalanobis distance for improving near-OOD detection,
        arXiv:2106.09022).
        """
        relative = self.features.distances(features) - self.background.distances(features)
        return np.stack([self.pixels.distances(_flat(images)), relative], axis=1).astype(np.float64)

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


def _flat(images: Images) -> Float[np.ndarray, "n values"]:
    """Return the pixels of each image; of a large image, the means of square blocks of them."""
    count, height, width, channels = images.shape
    side = 1
    while -(-height // side) * -(-width // side) * channels > MAX_VALUES:
        side += 1
    if side == 1:
        return images.reshape(count, -1).astype(np.float32)
    padded = np.pad(images, [(0, 0), (0, -height % side), (0, -width % side), (0, 0)])
    blocks = padded.reshape(count, -(-height // side), side, -(-width // side), side, channels)
    means: np.ndarray = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    return means
