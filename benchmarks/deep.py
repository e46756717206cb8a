"""Time the first epochs of studies/deep and print as JSON what a whole training takes at that rate.

python -m benchmarks.deep
"""

import argparse
import json
import time
from pathlib import Path

from fashion.data import dataset
from fashion.errors import run_command
from fashion.models import cnn, training
from fashion.params import change, load_params, read_yaml


def main() -> None:
    """Run the epochs: three, or as many as it takes to look twice for the hardest images."""
    argparse.ArgumentParser(prog="python -m benchmarks.deep", description=__doc__).parse_args()
    train, validation = (dataset.load(Path(f"data/{name}.npz")) for name in ("train", "validation"))
    whole = change(load_params().cnn, read_yaml(Path("studies/deep/params.yaml")))
    searches = whole.selection.share < 1 and whole.selection.hardest > 0
    part = change(whole, {"epochs": 2 * whole.selection.every + 1 if searches else 3})
    started = time.perf_counter()
    training.train(cnn.build, part, train, validation)
    seconds = (time.perf_counter() - started) * whole.epochs / part.epochs
    print(json.dumps({"seconds": seconds, "epochs": whole.epochs, "timed_epochs": part.epochs}))


if __name__ == "__main__":
    run_command(main)
