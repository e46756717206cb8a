"""Evaluate all trained models on the test set, and compare fine-tuning with the CNN."""

import argparse
from pathlib import Path

from fashion.errors import run_command

COMPARED = ("cnn", "finetuned")  # base and head
TESTED = "100"  # images per class, for McNemar's test


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.evaluate_all", description=__doc__)
    parser.add_argument("trials", type=Path, help="folder with a folder per method and number of images")
    parser.add_argument("test", type=Path, help="test split (folder)")
    parser.add_argument("maps", type=Path, help="feature maps of the test images (.npy)")
    parser.add_argument("features", type=Path, help="features of the test images (.npy)")
    parser.add_argument("results", type=Path, help="results to write, a row per model (.csv)")
    parser.add_argument("comparison", type=Path, help="comparison of the two methods to write (.json)")
    args = parser.parse_args()

    import numpy as np
    import pandas as pd

    from fashion.data import dataset
    from fashion.evaluation.significance import holm, mcnemar
    from fashion.files import read_json, write_json, write_text
    from fashion.models import saving

    test = dataset.load(args.test)
    maps, features = (np.load(path).astype(np.float32) for path in (args.maps, args.features))
    inputs = {array.shape[1:]: array for array in (test.images, maps, features)}

    rows, correct = [], {}
    for folder in sorted(path for path in args.trials.iterdir() if path.is_dir()):
        method, _, images = folder.name.partition("-")
        for trial in read_json(folder / "trials.json"):
            model = saving.load(folder / f"{trial['seed']}.keras")
            predicted = model.predict(inputs[model.input_shape[1:]], batch_size=500, verbose=0).argmax(axis=1)
            correct[folder.name, trial["seed"]] = predicted == test.labels
            accuracy = float((predicted == test.labels).mean())
            rows.append({"method": method, "images": images, **trial, "accuracy": accuracy})
            print(f"{folder.name}, seed {trial['seed']}: {accuracy:.2%}", flush=True)
    results = pd.DataFrame(rows)
    write_text(args.results, results.to_csv(index=False))
    accuracies = results.pivot(index=["images", "seed"], columns="method", values="accuracy")
    differences = (accuracies[COMPARED[1]] - accuracies[COMPARED[0]]).dropna().groupby("images").agg(["mean", "std"])
    seeds = sorted(seed for name, seed in correct if name == f"{COMPARED[0]}-{TESTED}")
    tests = [mcnemar(*(correct[f"{method}-{TESTED}", seed] for method in COMPARED)) for seed in seeds]
    adjusted = holm([test.p_value for test in tests])
    write_json(
        args.comparison,
        {
            "base": COMPARED[0],
            "head": COMPARED[1],
            "differences": differences.to_dict("index"),
            "images": TESTED,
            "seeds": {
                seed: {"fixed": test.fixed, "broken": test.broken, "p_value": p_value}
                for seed, test, p_value in zip(seeds, tests, adjusted, strict=True)
            },
        },
    )


if __name__ == "__main__":
    run_command(main)
