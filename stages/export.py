"""Export a trained model to LiteRT, calibrate it, verify it against Keras and evaluate it on the test split."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import check_params_fit, load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=__doc__)
    parser.add_argument("model", type=Path, help="trained model (.keras)")
    parser.add_argument("train", type=Path, help="training split (folder), for the detector and int8")
    parser.add_argument("validation", type=Path, help="validation split (folder), for the calibration")
    parser.add_argument("test", type=Path, help="test split (folder), for the verification and the metrics")
    parser.add_argument("models", type=Path, help="folder to write the exported files to")
    parser.add_argument("metrics", type=Path, help="metrics to write (.json)")
    args = parser.parse_args()
    params = load_params()

    import fashion.models  # noqa: F401 - TensorFlow, without its start-up messages
    from fashion.data import dataset
    from fashion.export.export import export
    from fashion.files import atomic_write, write_bytes, write_json

    train, validation, test = (dataset.load(path) for path in (args.train, args.validation, args.test))
    check_params_fit(train.image_shape, len(train.images))
    classes, bins = params.dataset.classes, params.evaluation.calibration_bins
    with atomic_write(args.models / "features.npy") as features:
        files, metrics = export(args.model, train, validation, test, classes, params.export, bins, features)

    for name, content in files.items():
        write_bytes(args.models / name, content)
    write_json(args.metrics, metrics)


if __name__ == "__main__":
    run_command(main)
