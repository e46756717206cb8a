"""Whether an exported model answers as the one that it was made from."""

import numpy as np

from fashion.evaluation.metrics import Probabilities

TOLERANCE = 1e-5  # of a probability: what rounding in float32 may change


def differences(ours: Probabilities, theirs: Probabilities) -> dict[str, float]:
    """Return how much two models differ in their answers to the same images, ready to be written as JSON.

    Returns:
        largest_difference: of a probability, over all images and classes.
        label_changes: images given another label, of those whose two highest probabilities in `ours` are more than
            `TOLERANCE` apart: the label of the others may hang on rounding.
    """
    second, first = np.partition(ours, -2, axis=1)[:, -2:].T
    changed = ours.argmax(axis=1) != theirs.argmax(axis=1)
    return {
        "largest_difference": float(f"{np.abs(ours.astype(np.float64) - theirs).max():.3g}"),
        "label_changes": int((changed & (first - second > TOLERANCE)).sum()),
    }
