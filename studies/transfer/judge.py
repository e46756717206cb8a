"""Judge every trained model on the test images, and compare two methods with few images of each class."""

import argparse
from pathlib import Path

from fashion.errors import run_command

COMPARED = ("cnn-100", "finetuned-100")  # trials between which McNemar's test is made, the first as the base


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.judge", description=__doc__)
    parser.add_argument("trials", type=Path, help="folder of the trials' folders")
    parser.add_argument("test", type=Path, help="test split (.npz)")
    parser.add_argument("maps", type=Path, help="maps of the test images (.npy)")
    parser.add_argument("features", type=Path, help="features of the test images (.npy)")
    parser.add_argument("results", type=Path, help="results to write (.csv): a row per model")
    parser.add_argument("comparison", type=Path, help="McNemar's tests to write (.json): one per seed")
    args = parser.parse_args()

    import numpy as np
    import pandas as pd

    from fashion.data import dataset
    from fashion.evaluation.comparison import mcnemar
    from fashion.files import read_json, write_json, write_text
    from fashion.models import archive

    test = dataset.load(args.test)
    maps, features = np.load(args.maps)[0].astype(np.float32), np.load(args.features).astype(np.float32)
    inputs = {given.shape[1:]: given for given in (test.images, maps, features)}

    rows, correct = [], {}
    for folder in sorted(path for path in args.trials.iterdir() if path.is_dir()):
        method, _, images = folder.name.partition("-")
        for trial in read_json(folder / "trials.json"):
            model = archive.load(folder / f"{trial['seed']}.keras")
            answers = model.predict(inputs[model.input_shape[1:]], batch_size=500, verbose=0).argmax(axis=1)
            correct[folder.name, trial["seed"]] = answers == test.labels
            accuracy = float((answers == test.labels).mean())
            rows.append({"method": method, "images": images, **trial, "accuracy": accuracy})
            print(f"{folder.name}, seed {trial['seed']}: {accuracy:.2%}", flush=True)
    write_text(args.results, pd.DataFrame(rows).to_csv(index=False))
    seeds = sorted(seed for name, seed in correct if name == COMPARED[0])
    tests = {seed: mcnemar(*(correct[name, seed] for name in COMPARED)) for seed in seeds}
    write_json(
        args.comparison,
        {"base": COMPARED[0], "head": COMPARED[1], "seeds": {seed: vars(found) for seed, found in tests.items()}},
    )


if __name__ == "__main__":
    run_command(main)
