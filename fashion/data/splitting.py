"""Setting images aside to choose by, so that the test images need not be looked at."""

import numpy as np
from jaxtyping import Int64, UInt8

from fashion.errors import UserError


def stratified_split(
    labels: UInt8[np.ndarray, "n"], validation_images: int, seed: int
) -> tuple[Int64[np.ndarray, "t"], Int64[np.ndarray, "v"]]:
    """Return sorted indices of training and validation images that share out every class in equal proportion.

    Each class gives its share of `validation_images`, rounded so that the total is exact (largest remainder), drawn
    without replacement from a generator seeded with `seed`.

    Raises:
        UserError: a class would be left without an image on one of the two sides.
    """
    counts = np.bincount(labels)
    shares = counts * validation_images / len(labels)
    take = np.floor(shares).astype(np.int64)
    largest_remainders = np.argsort(take - shares, kind="stable")[: validation_images - take.sum()]
    take[largest_remainders] += 1
    if (take < 1).any() or (take >= counts).any():
        raise UserError(
            f"params.yaml: validation.images: with {validation_images:,} of the {len(labels):,} images, some class has "
            f"no image left to train on or none to validate with; the smallest class has {counts.min():,} images"
        )
    generator = np.random.default_rng(seed)
    validation = np.sort(
        np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(take)])
    )
    training = np.setdiff1d(np.arange(len(labels)), validation)
    return training, validation
