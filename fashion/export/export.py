"""Export of a trained model: conversion, calibration, out-of-distribution detection, verification, evaluation."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from fashion.data.dataset import Images, Split, npy_header
from fashion.evaluation import calibration, metrics
from fashion.evaluation.predictions import Labels, Predictions, Probabilities
from fashion.export import convert, litert, verify
from fashion.export.ood import OODDetector, reference
from fashion.models import saving
from fashion.params import ExportParams


def export(
    path: Path,
    train: Split,
    validation: Split,
    test: Split,
    classes: Sequence[str],
    params: ExportParams,
    bins: int,
    features_file: IO[bytes],
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Export the model at `path` (.keras).

    Args:
        path: the trained model.
        train: a sample of them calibrates int8, another the out-of-distribution detector compares with.
        validation: the images that the temperature and the detector's thresholds are chosen on.
        test: the images that the exported models are verified and evaluated on.
        classes: the names of the classes.
        params: the section `export`.
        bins: number of bins of the calibration error.
        features_file: to write the features of the reference images to, float16 (n, features), in the .npy format.

    Returns:
        The content of each other file to write, by name, and the metrics.

    Raises:
        UserError: the LiteRT model does not predict what the Keras model does.
    """
    trained = convert.to_float32(saving.load(path))
    extractor = convert.FeatureExtractor(trained)

    def reference_images() -> Iterator[tuple[Images, convert.Features, Labels]]:
        known = reference(train)
        features_file.write(npy_header(np.dtype(np.float16), (len(known.images), extractor.size)))
        for batch, features, _ in extractor.batches(known):
            features_file.write(features.astype(np.float16).tobytes())
            yield known.images[batch], features, known.labels[batch]

    validation_features, logits = extractor(validation)
    _, test_logits = extractor(test)

    temperature = calibration.fit_temperature(logits, validation.labels)
    detector = OODDetector.fit(reference_images(), len(classes)).calibrate(
        validation.images, validation_features, params.ood_rate
    )
    calibrated = convert.with_temperature(trained, temperature)
    float32 = litert.with_metadata(convert.to_litert(calibrated), classes, params.preprocessing)
    representative = train.sample(params.representative_images)
    int8 = litert.with_metadata(convert.to_litert_int8(calibrated, representative), classes, params.preprocessing)

    expected = calibration.probabilities(test_logits, temperature)
    probabilities, test_features = litert.LiteRTModel(float32, "model.tflite")(test.images)
    probabilities_int8, _ = litert.LiteRTModel(int8, "model.int8.tflite")(test.images)
    difference = verify.check(expected, probabilities, path)

    def score(predicted: Probabilities, size: int) -> dict[str, float]:
        summary = metrics.summary(Predictions.of(predicted, test.labels, tuple(classes)), bins)
        names = ("accuracy", "balanced_accuracy", "macro_f1", "loss", "calibration_error")
        return {"bytes": size, **{name: summary[name] for name in names}}

    files = {
        "model.tflite": float32,
        "model.int8.tflite": int8,
        "ood.npz": detector.to_bytes(),
        "exported_probabilities.npy": npy_header(probabilities.dtype, probabilities.shape) + probabilities.tobytes(),
    }
    return files, {
        "temperature": round(temperature, 6),
        "ood_rate": round(1 - float(detector.in_distribution(test.images, test_features).mean()), 6),
        "keras": score(calibration.probabilities(test_logits, 1.0), path.stat().st_size),
        "float32": score(probabilities, len(float32)) | difference,
        "int8": score(probabilities_int8, len(int8)) | verify.differences(expected, probabilities_int8),
    }
