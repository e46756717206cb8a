"""The optimisers and the learning-rate schedule."""

from typing import Any

import keras
import numpy as np
import pytest

from fashion.models import optimizers
from tests.test_models import PARAMS as MODEL_PARAMS

PARAMS = MODEL_PARAMS.model_copy(update={"warmup_fraction": 0.0, "learning_rate": 0.1, "adam_learning_rate": 0.01})
GENERATOR = np.random.default_rng(1)


def moved(variable: Any, gradient: np.ndarray) -> np.ndarray:
    before = np.array(variable)
    optimizers.create(PARAMS, steps=100).apply([keras.ops.convert_to_tensor(gradient)], [variable])
    after: np.ndarray = np.array(variable) - before
    return after


@pytest.mark.parametrize("shape", [(3, 3, 8, 6), (3, 3, 2, 30), (40, 6)])
def test_muon_step(shape: tuple[int, ...]) -> None:
    start = GENERATOR.normal(size=shape)
    start *= shape[-1] ** 0.5 / np.linalg.norm(start)  # the norm that Muon rescales it to
    gradient = GENERATOR.normal(size=shape).astype(np.float32)
    steps = [
        moved(keras.Variable(start.astype(np.float32)), scale * gradient).reshape(-1, shape[-1]) for scale in (1, 1e-3)
    ]
    sizes = np.linalg.svd(steps[0], compute_uv=False) / PARAMS.learning_rate
    assert sizes.min() > 0.3
    assert sizes.max() < 1.3
    assert (steps[0] * gradient.reshape(-1, shape[-1])).sum() < 0
    np.testing.assert_allclose(steps[0], steps[1], atol=1e-4)


def test_muon_rescales_kernels() -> None:
    kernel = keras.Variable(GENERATOR.normal(size=(3, 3, 4, 9)).astype(np.float32) * 50)
    moved(kernel, np.zeros((3, 3, 4, 9), np.float32))
    assert np.linalg.norm(kernel) == pytest.approx(3)


@pytest.mark.parametrize(("shape", "name"), [((5,), "bias"), ((5, 3), optimizers.OUTPUT)])
def test_adamw(shape: tuple[int, ...], name: str) -> None:
    variable = keras.Variable(np.zeros(shape, np.float32), name=name)
    step = moved(variable, np.full(shape, 7.0, np.float32))
    np.testing.assert_allclose(step, -PARAMS.adam_learning_rate, rtol=1e-3)  # Adam's first step


@pytest.mark.parametrize(
    ("warmup", "final", "expected"),
    [
        (0.2, 0.0, [0, 0.05, 0.1, 0.05, 0]),
        (0.2, 0.4, [0, 0.05, 0.1, 0.07, 0.04]),
        (0.0, 1.0, [0.1] * 5),
    ],
)
def test_learning_rate(warmup: float, final: float, expected: list[float]) -> None:
    changes = {"warmup_fraction": warmup, "final_learning_rate_fraction": final}
    optimizer = optimizers.create(PARAMS.model_copy(update=changes), steps=50)
    rates = []
    for step in (0, 5, 10, 30, 50):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx(expected, abs=1e-6)


def test_adam() -> None:
    optimizer = optimizers.create(PARAMS.model_copy(update={"optimizer": "adam"}), steps=50)
    assert isinstance(optimizer, keras.optimizers.Adam)
