"""Exported models predict what the trained ones do; calibration."""

import io
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.evaluation import calibration, metrics
from fashion.evaluation.predictions import Predictions
from fashion.export import convert, litert, verify
from fashion.models import networks, training
from tests.conftest import MODELS
from tests.test_models import COLOUR_TRAIN, COLOUR_VALIDATION, TRAIN, VALIDATION, small_params

CLASSES = ["upright", "level", "slope"]


@pytest.fixture(scope="module", params=[(TRAIN, VALIDATION), (COLOUR_TRAIN, COLOUR_VALIDATION)], ids=["grey", "colour"])
def splits(request: pytest.FixtureRequest) -> tuple[Split, Split]:
    """Return training and validation images."""
    splits: tuple[Split, Split] = request.param
    return splits


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, splits: tuple[Split, Split]) -> keras.Model:
    """Return a network trained in bfloat16, which LiteRT cannot load without conversion."""
    params = small_params(request.param).model_copy(update={"precision": "bfloat16", "epochs": 1})
    return training.train(networks.load(request.param), params, *splits)[0]


def test_float32(trained: keras.Model, splits: tuple[Split, Split]) -> None:
    images = splits[1].images
    rebuilt = convert.to_float32(trained)
    assert "bfloat16" in str(trained.get_config())
    assert "bfloat16" not in str(rebuilt.get_config())
    np.testing.assert_allclose(rebuilt.predict(images, verbose=0), trained.predict(images, verbose=0), atol=0.05)

    expected_features, logits = convert.FeatureExtractor(rebuilt)(splits[1])
    content, again = (
        litert.with_metadata(
            convert.to_litert(convert.with_temperature(convert.to_float32(trained), 0.5)), CLASSES, "resize"
        )
        for _ in range(2)
    )
    assert content == again
    model = litert.LiteRTModel(content, "model.tflite")
    assert (model.classes, model.preprocessing) == (CLASSES, "resize")
    assert model.image_shape == images.shape[1:]
    probabilities, features = model(images)
    np.testing.assert_allclose(probabilities, calibration.probabilities(logits, 0.5), atol=1e-5)
    np.testing.assert_allclose(features, expected_features, atol=1e-4)
    np.testing.assert_allclose(model(images[:1])[0], probabilities[:1], atol=1e-6)


def test_int8(trained: keras.Model, splits: tuple[Split, Split]) -> None:
    train, validation = splits
    calibrated = convert.with_temperature(convert.to_float32(trained), 1.0)
    content = litert.with_metadata(convert.to_litert_int8(calibrated, train.images[:100]), CLASSES, "resize")
    probabilities, _ = litert.LiteRTModel(content, "model.int8.tflite")(validation.images)
    expected = calibrated.predict(validation.images, verbose=0)["probabilities"]
    assert np.abs(probabilities - expected).mean() < 0.03
    assert not np.allclose(probabilities, expected, atol=1e-4)


@pytest.mark.parametrize("content", [b"", b"no model", litert.with_metadata(b"no model", CLASSES, "resize")])
def test_not_a_model(content: bytes) -> None:
    with pytest.raises(UserError, match=r"m\.tflite: not a model written by the export stage \(.*\); run `dvc repro`"):
        litert.LiteRTModel(content, "m.tflite")


def test_metadata() -> None:
    names = ["a\rb", "c\x85d", "e\u2028f", "g h"]
    with zipfile.ZipFile(io.BytesIO(litert.with_metadata(b"model", names, "fashion-mnist"))) as archive:
        assert archive.read(litert.LABELS).decode().split("\n") == names
        assert archive.read(litert.PREPROCESSING) == b"fashion-mnist"


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_fit_temperature(temperature: float) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (20_000, 5))
    labels = (calibration.probabilities(logits, temperature).cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    calibrated = calibration.probabilities(logits, found)
    assert metrics.calibration_error(Predictions.of(calibrated, labels, tuple("abcde")), 15) < 0.015
    np.testing.assert_array_equal(calibrated.argmax(axis=1), logits.argmax(axis=1))


@pytest.mark.parametrize("count", [20, 2000])
def test_fit_temperature_without_errors(count: int) -> None:
    """A model that classifies all images correctly is not infinitely confident."""
    labels = np.arange(count) % 5
    logits = np.eye(5)[labels] * 4
    found = calibration.probabilities(logits, calibration.fit_temperature(logits, labels))
    assert found.max(axis=1) == pytest.approx(1 - 0.8 / (count + 2), abs=1e-4)


def test_verify() -> None:
    expected = np.array([[0.6, 0.3, 0.1], [0.499_999, 0.500_001, 0.0], [0.2, 0.7, 0.1]])
    found = np.array([[0.6, 0.3, 0.1], [0.500_001, 0.499_999, 0.0], [0.5, 0.4, 0.1]])
    assert verify.differences(expected, found) == {"largest_difference": 0.3, "label_changes": 1}
    path = Path("model.keras")
    verify.check(expected, expected + 1e-6, path)
    for wrong in (found, expected + 1e-4, expected * np.nan):
        with pytest.raises(UserError, match=r"the LiteRT model made from model\.keras does not match it"):
            verify.check(expected, wrong, path)
