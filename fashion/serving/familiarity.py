"""Telling whether an image is like those that a model was trained on: if not, its answer means nothing.

A softmax is sure of something whatever the image. So the image is also compared with the training images, in two ways:
by its pixels, which tells noise, and by the features that the model's answer follows from, which tells other pictures,
such as digits.
"""

import io
import zipfile
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

Vectors = Float[np.ndarray, "n size"]
Images = UInt8[np.ndarray, "n height width"]
Labels = UInt8[np.ndarray, "n"]

TINY = 1e-30
SHRINKAGE = 0.001  # of a covariance, towards that of unrelated numbers: some pixels are always black


@dataclass(frozen=True)
class Clusters:
    """Normal distributions of one covariance.

    Attributes:
        centres: their means.
        whitening: a matrix that gives vectors the covariance 1 when they are multiplied by it.
    """

    centres: Float[np.ndarray, "groups size"]
    whitening: Float[np.ndarray, "size size"]

    @classmethod
    def of(cls, vectors: Vectors, groups: Labels) -> "Clusters":
        """Return the distributions of the groups of vectors; `groups` has the number of each vector's, from 0."""
        centres = np.stack([vectors[groups == group].mean(axis=0) for group in range(int(groups.max()) + 1)])
        differences = vectors - centres[groups]
        covariance = differences.T @ differences / len(vectors)
        shrinkage = SHRINKAGE * covariance.diagonal().mean() + TINY  # in case that all numbers are the same
        covariance += shrinkage * np.eye(len(covariance), dtype=vectors.dtype)
        return cls(centres, np.linalg.cholesky(np.linalg.inv(covariance)))

    def distances(self, vectors: Vectors) -> Float[np.ndarray, "n"]:
        """Return the squared Mahalanobis distance of each vector from the closest centre."""
        whitened, centres = vectors @ self.whitening, self.centres @ self.whitening
        to_centres = (centres**2).sum(axis=1) - 2 * whitened @ centres.T
        squared: np.ndarray = (whitened**2).sum(axis=1) + to_centres.min(axis=1)
        return squared


@dataclass(frozen=True)
class Familiarity:
    """What a model was trained on, to compare with.

    Attributes:
        pixels: of the training images, by class.
        features: of the training images, by class.
        features_of_all: of the training images, as one group.
        limits: distances in pixels and in features beyond which an image is not familiar.
    """

    pixels: Clusters
    features: Clusters
    features_of_all: Clusters
    limits: Float64[np.ndarray, "2"]

    @classmethod
    def of(cls, images: Images, features: Vectors, labels: Labels) -> "Familiarity":
        """Compare with these training images; everything is familiar."""
        return cls(
            Clusters.of(_flat(images), labels),
            Clusters.of(features, labels),
            Clusters.of(features, np.zeros_like(labels)),
            np.full(2, np.inf),
        )

    def limited(self, images: Images, features: Vectors, share: float) -> "Familiarity":
        """Return the same with limits so that a share of these images is unfamiliar by pixels, and one by features."""
        return replace(self, limits=np.quantile(self.distances(images, features), 1 - share, axis=0))

    def distances(self, images: Images, features: Vectors) -> Float64[np.ndarray, "n 2"]:
        """Return how far each image is from the training images, by its pixels and by its features.

        The first is the squared Mahalanobis distance from the closest class. The second is relative: how much farther
        that is than the distance from all images together, since features differ in many ways that no class explains
        (J. Ren et al., A simple fix to Mahalanobis distance for improving near-OOD detection, arXiv:2106.09022).
        """
        relative = self.features.distances(features) - self.features_of_all.distances(features)
        return np.stack([self.pixels.distances(_flat(images)), relative], axis=1).astype(np.float64)

    def familiar(self, images: Images, features: Vectors) -> Bool[np.ndarray, "n"]:
        """Tell for each image whether it is within both limits."""
        within: np.ndarray = (self.distances(images, features) - self.limits).max(axis=1) <= 0
        return within

    def save(self, file: IO[bytes]) -> None:
        """Write it as .npz, the same bytes for the same arrays whatever the release of Python."""
        parts = {"pixels": self.pixels, "features": self.features, "features_of_all": self.features_of_all}
        arrays = {f"{name}.{key}": value for name, part in parts.items() for key, value in vars(part).items()}
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in {"limits": self.limits, **arrays}.items():
                np.lib.format.write_array(content := io.BytesIO(), array, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())

    @classmethod
    def load(cls, content: bytes) -> "Familiarity":
        """Return what `save` wrote; `content` is the whole of the file."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            pixels, features, features_of_all = (
                Clusters(arrays[f"{name}.centres"], arrays[f"{name}.whitening"])
                for name in ("pixels", "features", "features_of_all")
            )
            return cls(pixels, features, features_of_all, arrays["limits"])


def _flat(images: Images) -> Float[np.ndarray, "n pixels"]:
    return images.reshape(len(images), -1).astype(np.float32)
