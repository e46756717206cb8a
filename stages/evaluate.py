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
    parser.add_argument("reports", type=Path, help="folder to write metrics.json and predictions.csv to")
    args = parser.parse_args()
    params = load_params()

    import numpy as np

    from fashion.data import dataset
    from fashion.evaluation import metrics
    from fashion.evaluation.predictions import Predictions, sha256
    from fashion.files import atomic_write, write_json, write_text
    from fashion.models import saving
    from fashion.models.flops import inference_flops
    from fashion.models.input_pipeline import batches

    test = dataset.load(args.test)
    model = saving.load(args.model)
    probabilities = model.predict(batches(test), verbose=0)
    classes = params.dataset.classes
    table = Predictions.of(probabilities, test.labels, classes).to_csv()
    rounded = Predictions.parse(table.encode(), classes, "predictions.csv")  # so anyone can compute the metrics from it
    summary = metrics.summary(rounded, params.evaluation.calibration_bins)

    with atomic_write(args.probabilities) as file:
        np.save(file, probabilities)
    write_text(args.reports / "predictions.csv", table)
    cost = {"parameters": model.count_params(), "inference_flops": inference_flops(model)}
    write_json(args.reports / "metrics.json", {**cost, "test_set": sha256(test), **summary})


if __name__ == "__main__":
    run_command(main)
