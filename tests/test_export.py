"""An exported model answers as the trained one does, with a confidence that means something."""

import io
import zipfile
from typing import Any

import keras
import numpy as np
import pytest

from fashion.errors import UserError
from fashion.evaluation import calibration, metrics, verify_MOVED
from fashion.models import export, training
from fashion.serving import litert_MOVED
from tests.test_models import BOTH, TRAIN, VALIDATION

CLASSES = ["upright", "level", "slope"]


def trained(build: Any, params: Any) -> keras.Model:
    """Return a network trained in bfloat16, which LiteRT cannot load as it is."""
    return training.train(build, params.model_copy(update={"precision": "bfloat16"}), TRAIN, VALIDATION)[0]


@BOTH
def test_exported_in_float32(build: Any, params: Any) -> None:
    model = trained(build, params)
    rebuilt = export.to_float32(model)
    assert {layer.dtype_policy.name for layer in rebuilt.layers[1:]} == {"float32"}
    np.testing.assert_allclose(
        rebuilt.predict(VALIDATION.images, verbose=0), model.predict(VALIDATION.images, verbose=0), atol=0.05
    )

    features, logits = export.features_and_logits(rebuilt, VALIDATION.images)
    expected = calibration.probabilities(logits, 0.5)
    content = litert.with_labels(export.litert(export.calibrated(rebuilt, 0.5)), CLASSES)
    assert content == litert.with_labels(export.litert(export.calibrated(export.to_float32(model), 0.5)), CLASSES)
    network = litert.Network(content, "model.tflite")
    assert network.classes == CLASSES
    assert network.image_shape == TRAIN.image_shape
    probabilities, seen = network(VALIDATION.images)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(seen, features, atol=1e-4)
    np.testing.assert_allclose(network(VALIDATION.images[:1])[0], probabilities[:1], atol=1e-6)


@BOTH
def test_exported_in_int8(build: Any, params: Any) -> None:
    model = export.calibrated(export.to_float32(trained(build, params)), 1.0)
    content = litert.with_labels(export.to_litert_int8(model, TRAIN.images[:100]), CLASSES)
    probabilities, _ = litert.Network(content, "model.int8.tflite")(VALIDATION.images)
    expected = model.predict(VALIDATION.images, verbose=0)["probabilities"]
    assert np.abs(probabilities - expected).mean() < 0.03
    assert not np.allclose(probabilities, expected, atol=1e-4)


@pytest.mark.parametrize("content", [b"", b"no model", litert.with_labels(b"no model", CLASSES)])
def test_no_model(content: bytes) -> None:
    with pytest.raises(UserError, match=r"m\.tflite: not a model of the export stage \(.*\); run `dvc repro`"):
        litert.Network(content, "m.tflite")


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found(temperature: float) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (20_000, 5))
    labels = (calibration.probabilities(logits, temperature).cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    calibrated = calibration.probabilities(logits, found)
    assert metrics.calibration_error(calibrated, labels, 15) < 0.015
    np.testing.assert_array_equal(calibrated.argmax(axis=1), logits.argmax(axis=1))


def test_probabilities_of_huge_logits() -> None:
    found = calibration.probabilities(np.array([[1e4, 0.0], [0.0, 0.0]]), 1.0)
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.5, 0.5]])


def test_differences_of_answers() -> None:
    ours = np.array([[0.6, 0.3, 0.1], [0.499_999, 0.500_001, 0.0], [0.2, 0.7, 0.1]])
    theirs = np.array([[0.6, 0.3, 0.1], [0.500_001, 0.499_999, 0.0], [0.5, 0.4, 0.1]])
    assert verify.differences(ours, theirs) == {"largest_difference": 0.3, "label_changes": 1}
    assert np.isnan(verify.differences(ours, theirs * np.nan)["largest_difference"])


def test_names_of_classes_are_kept_whatever_is_in_them() -> None:
    names = ["a\rb", "c\x85d", "e\u2028f", "g h"]
    with zipfile.ZipFile(io.BytesIO(litert.with_labels(b"model", names))) as archive:
        assert archive.read(litert.LABELS).decode().split("\n") == names
