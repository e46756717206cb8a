"""Temperature scaling: of the predictions made with 80% confidence, 80% should be correct."""

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fashion.evaluation.predictions import Labels

Logits = Shaped[np.ndarray, "n classes"]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature that minimises the cross-entropy of the softmax of `logits` divided by it.

    The labels are smoothed by 1 / (n + 2), similar to Platt scaling. Without that, a model that classifies all n images
    correctly would get `MIN_TEMPERATURE`.

    Args:
        logits: (n, classes), logits of each class for each image.
        labels: (n,), the actual class of each image.

    Returns:
        A number from `MIN_TEMPERATURE` to `MAX_TEMPERATURE`, below 1 for an underconfident model. It changes no
        predicted class.

    Sources: C. Guo et al., On calibration of modern neural networks, ICML 2017; J. Platt, Probabilistic outputs for
    support vector machines, 1999.
    """
    rows, smoothing = np.arange(len(labels)), 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        log_probabilities = _log_probabilities(logits, np.exp(log_temperature))
        correct, uniform = log_probabilities[rows, labels].mean(), log_probabilities.mean()
        return float(-(1 - smoothing) * correct - smoothing * uniform)

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def probabilities(logits: Logits, temperature: float) -> Float64[np.ndarray, "n classes"]:
    """Return the softmax of `logits` divided by `temperature`."""
    return np.asarray(np.exp(_log_probabilities(logits, temperature)))


def _log_probabilities(logits: Logits, temperature: float) -> Float64[np.ndarray, "n classes"]:
    return np.asarray(log_softmax(logits.astype(np.float64) / temperature, axis=1))
