"""Verification of an exported model: it must predict what the Keras model predicts."""

from pathlib import Path

import numpy as np

from fashion.errors import UserError
from fashion.evaluation.predictions import Probabilities

TOLERANCE = 1e-4  # of a probability: the effect of rounding in float32, which grows with the size of the images


def check(expected: Probabilities, found: Probabilities, model: Path) -> dict[str, float]:
    """Compare the probabilities of an exported model with those of the Keras model at the path `model`.

    Returns:
        Their differences, as for `differences`.

    Raises:
        UserError: a label differs, or a probability by `TOLERANCE` or more.
    """
    difference = differences(expected, found)
    if difference["label_changes"] or not difference["largest_difference"] < TOLERANCE:  # also false for NaN
        raise UserError(
            f"the LiteRT model made from {model} does not match it: probabilities differ by up to "
            f"{difference['largest_difference']:.2g} (expected: less than {TOLERANCE:g}), and "
            f"{difference['label_changes']} of {len(found):,} labels differ (expected: 0)"
        )
    return difference


def differences(expected: Probabilities, found: Probabilities) -> dict[str, float]:
    """Return how much two models differ on the same images, ready to be written as JSON.

    Returns:
        largest_difference: of a probability, over all images and classes.
        label_changes: number of images with another label, of those whose two highest probabilities in `expected` are
            more than `TOLERANCE` apart; the labels of the others depend on rounding.
    """
    second, first = np.partition(expected, -2, axis=1)[:, -2:].T
    changed = expected.argmax(axis=1) != found.argmax(axis=1)
    return {
        "largest_difference": float(f"{np.abs(expected.astype(np.float64) - found).max():.3g}"),
        "label_changes": int((changed & (first - second > TOLERANCE)).sum()),
    }
