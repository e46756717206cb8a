"""Making confidence mean something: of the answers given with 80 % confidence, 80 % should be right."""

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.optimize import minimize_scalar

from fashion.evaluation.metrics import Labels

Logits = Shaped[np.ndarray, "n classes"]

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the number to divide logits by so that the cross-entropy of their softmax is least; it changes no label.

    It is below 1 for a model that is less sure of itself than it may be, and lies between `LOWEST` and `HIGHEST`.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    rows = np.arange(len(labels))

    def loss(exponent: float) -> float:
        return float(-_log_softmax(logits, np.exp(exponent))[rows, labels].mean())

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def probabilities(logits: Logits, temperature: float) -> Float64[np.ndarray, "n classes"]:
    """Return the softmax of logits divided by `temperature`."""
    softmax: np.ndarray = np.exp(_log_softmax(logits, temperature))
    return softmax


def _log_softmax(logits: Logits, temperature: float) -> Float64[np.ndarray, "n classes"]:
    scaled: np.ndarray = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return scaled
