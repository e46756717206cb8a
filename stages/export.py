"""Export a trained model to LiteRT, calibrated, prove that it answers as before, and say how good it is now."""

import argparse
from pathlib import Path

from fashion.errors import UserError, run_command
from fashion.params import check_params_fit, load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=__doc__)
    parser.add_argument("model", type=Path, help="trained model (.keras)")
    parser.add_argument("train", type=Path, help="training split (.npz), to compare images with")
    parser.add_argument("validation", type=Path, help="validation split (.npz), to calibrate with")
    parser.add_argument("test", type=Path, help="test split (.npz), to prove and judge the exported models with")
    parser.add_argument("float32", type=Path, help="model to write, in float32 (.tflite)")
    parser.add_argument("int8", type=Path, help="model to write, in int8 (.tflite)")
    parser.add_argument("familiarity", type=Path, help="what images are compared with, to write (.npz)")
    parser.add_argument("features", type=Path, help="features of the training images to write, float16 (.npy)")
    parser.add_argument("probabilities", type=Path, help="exported model's on the test images, to write (.npy)")
    parser.add_argument("metrics", type=Path, help="metrics to write (.json)")
    args = parser.parse_args()
    params = load_params()

    import numpy as np

    from fashion.data import dataset
    from fashion.evaluation import calibration, metrics, parity
    from fashion.files import atomic_write, write_json
    from fashion.models import archive, export
    from fashion.serving import litert
    from fashion.serving.familiarity import Familiarity

    classes, settings = params.dataset.classes, params.export
    train, validation, test = (dataset.load(path) for path in (args.train, args.validation, args.test))
    check_params_fit(train.image_shape, len(train.images))
    trained = export.in_float32(archive.load(args.model))
    features, _ = export.features_and_logits(trained, train.images)
    validation_features, logits = export.features_and_logits(trained, validation.images)
    _, test_logits = export.features_and_logits(trained, test.images)

    temperature = calibration.fit_temperature(logits, validation.labels)
    familiarity = Familiarity.of(train.images, features, train.labels).limited(
        validation.images, validation_features, settings.unfamiliar
    )
    model = export.calibrated(trained, temperature)
    float32 = litert.with_labels(export.litert(model), classes)
    int8 = litert.with_labels(export.litert_int8(model, train.images[: settings.int8_images]), classes)

    expected = calibration.probabilities(test_logits, temperature)
    probabilities, test_features = litert.Network(float32, str(args.float32))(test.images)
    probabilities_int8, _ = litert.Network(int8, str(args.int8))(test.images)
    difference = parity.differences(expected, probabilities)
    if difference["label_changes"] or not difference["largest_difference"] < parity.TOLERANCE:
        raise UserError(
            f"{args.float32} would not answer as {args.model} does: probabilities differ by up to "
            f"{difference['largest_difference']:.2g}, and {difference['label_changes']} of {len(test.labels):,} test "
            f"images get another label; none may, and the difference must be below {parity.TOLERANCE:g}"
        )

    def judged(answers: np.ndarray, size: int) -> dict[str, float]:
        summary = metrics.summary(answers, test.labels, classes, params.evaluation.calibration_bins)
        return {"bytes": size, **{name: summary[name] for name in ("accuracy", "loss", "calibration_error")}}

    for path, content in ((args.float32, float32), (args.int8, int8)):
        with atomic_write(path) as file:
            file.write(content)
    with atomic_write(args.familiarity) as file:
        familiarity.save(file)
    for path, array in ((args.features, features.astype(np.float16)), (args.probabilities, probabilities)):
        with atomic_write(path) as file:
            np.save(file, array)
    write_json(
        args.metrics,
        {
            "temperature": round(temperature, 6),
            "unfamiliar": round(1 - float(familiarity.familiar(test.images, test_features).mean()), 6),
            "keras": judged(calibration.probabilities(test_logits, 1.0), args.model.stat().st_size),
            "float32": judged(probabilities, len(float32)) | difference,
            "int8": judged(probabilities_int8, len(int8)) | parity.differences(expected, probabilities_int8),
        },
    )


if __name__ == "__main__":
    run_command(main)
