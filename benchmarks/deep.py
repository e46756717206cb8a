"""Time the first epochs of studies/deep, and print the time of a whole training at that rate as JSON.

python -m benchmarks.deep
"""

import argparse
import itertools
import json
import shlex
import time
from pathlib import Path
from typing import Any

from fashion.data import dataset
from fashion.errors import run_command
from fashion.models import networks, training
from fashion.params import load_params
from fashion.validation import parse_settings, read_yaml

EPOCHS = 3


def main() -> None:
    """Train for `EPOCHS` epochs."""
    argparse.ArgumentParser(prog="python -m benchmarks.deep", description=__doc__).parse_args()
    train, validation = (dataset.load(Path(f"data/{name}")) for name in ("train", "validation"))
    changes = settings(Path("studies/deep/dvc.yaml"))
    params = networks.params_of("cnn", load_params(), changes | {"epochs": EPOCHS})
    started = time.perf_counter()
    training.train(networks.load("cnn"), params, train, validation)
    seconds = (time.perf_counter() - started) * changes["epochs"] / EPOCHS
    print(json.dumps({"seconds": seconds, "epochs": changes["epochs"], "timed_epochs": EPOCHS}))


def settings(pipeline: Path) -> dict[str, Any]:
    """Return what `--set` changes in the command of the train stage of a dvc.yaml, except for the seed."""
    words = shlex.split(read_yaml(pipeline)["stages"]["train"]["cmd"])
    values = (value for option, value in itertools.pairwise(words) if option == "--set")
    return parse_settings(value for value in values if not value.startswith("seed="))


if __name__ == "__main__":
    run_command(main)
