"""The stratified split into training and validation images."""

import numpy as np
from jaxtyping import Int64, UInt8

from fashion.errors import UserError


def stratified_split(
    labels: UInt8[np.ndarray, "n"], validation_images: int, seed: int
) -> tuple[Int64[np.ndarray, "t"], Int64[np.ndarray, "v"]]:
    """Return the sorted indices of the training and the validation images, with equal class proportions in both.

    The number of validation images of each class is rounded by the largest-remainder method, so that the total is
    exact; a class too rare for one still gets one, from the class with the most. The images are drawn without
    replacement.

    Args:
        labels: the class of each image.
        validation_images: total number of validation images.
        seed: of the random generator.

    Raises:
        UserError: a class would have no image in one of the two splits.
    """
    counts = np.bincount(labels)
    shares = counts * validation_images / len(labels)
    take = np.floor(shares).astype(np.int64)
    largest_remainders = np.argsort(take - shares, kind="stable")[: validation_images - take.sum()]
    take[largest_remainders] += 1
    for rare in np.flatnonzero(take == 0):
        take[[rare, take.argmax()]] += [1, -1]
    if (take < 1).any() or (take >= counts).any():
        raise UserError(
            f"params.yaml: validation.images: {validation_images:,} of {len(labels):,} images would leave a class "
            f"without training or without validation images; the smallest class has {counts.min():,} images"
        )
    generator = np.random.default_rng(seed)
    validation = np.sort(
        np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(take)])
    )
    training = np.setdiff1d(np.arange(len(labels)), validation)
    return training, validation
