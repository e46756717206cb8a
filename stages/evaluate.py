"""Evaluate a trained model on the test split, which is used neither for training nor for tuning."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="trained model (.keras)")
    parser.add_argument("test", type=Path, help="test split (folder)")
    parser.add_argument("probabilities", type=Path, help="probabilities to write, float32 (n, classes) (.npy)")
    parser.add_argument("reports", type=Path, help="folder to write metrics.json and confusion.csv to")
    args = parser.parse_args()
    params = load_params()

    import numpy as np

    from fashion.data import dataset
    from fashion.evaluation import metrics
    from fashion.files import atomic_write, write_json, write_text
    from fashion.models import saving
    from fashion.models.input_pipeline import batches

    classes = params.dataset.classes
    test = dataset.load(args.test)
    model = saving.load(args.model)
    probabilities = model.predict(batches(test), verbose=0)

    with atomic_write(args.probabilities) as file:
        np.save(file, probabilities)
    summary = metrics.summary(probabilities, test.labels, classes, params.evaluation.calibration_bins)
    write_json(args.reports / "metrics.json", {"parameters": model.count_params(), **summary})
    write_text(args.reports / "confusion.csv", metrics.confusion_csv(probabilities, test.labels, classes))


if __name__ == "__main__":
    run_command(main)
