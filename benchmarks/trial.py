"""Train one model once, in a process of its own, and print as JSON what it took and what it reached.

    python -m benchmarks.trial NAME SEED

The time is that of the training alone: data in memory before it, no import within it.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import run_command
from fashion.params import change, load_params

SHORT = {"epochs": 7}  # of the CNN, the setting for those who wait half as long
Probabilities = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trial", description=__doc__)
    parser.add_argument("name", choices=["tutorial", "demo", "dnn", "cnn", "cnn-short"])
    parser.add_argument("seed", type=int)
    args = parser.parse_args()
    train, validation, test = (dataset.load(Path(f"data/{name}.npz")) for name in ("train", "validation", "test"))
    run = _peer if args.name in ("tutorial", "demo") else _ours
    seconds, probabilities = run(args.name, args.seed, train, validation)
    accuracy = float(np.mean(probabilities(test.images).argmax(axis=1) == test.labels))
    print(json.dumps({"name": args.name, "seed": args.seed, "seconds": seconds, "accuracy": accuracy}))


def _peer(name: str, seed: int, train: Split, validation: Split) -> tuple[float, Probabilities]:
    from benchmarks import baselines

    if name == "demo":  # its authors keep no validation images
        train = Split(np.concatenate([train.images, validation.images]), np.append(train.labels, validation.labels))
    network, batch_size = (baselines.demo(), 128) if name == "demo" else (baselines.tutorial(), 32)
    started = time.perf_counter()
    baselines.train(network, batch_size, train, seed)
    seconds = time.perf_counter() - started
    return seconds, lambda images: network.predict(baselines.scaled(images), verbose=0)


def _ours(name: str, seed: int, train: Split, validation: Split) -> tuple[float, Probabilities]:
    from fashion.models import cnn, dnn, training

    params = load_params()
    started = time.perf_counter()
    if name == "dnn":
        network, _ = training.train(dnn.build, change(params.dnn, {"seed": seed}), train, validation)
    else:
        settings = change(params.cnn, {"seed": seed, **(SHORT if name == "cnn-short" else {})})
        network, _ = training.train(cnn.build, settings, train, validation)
    seconds = time.perf_counter() - started
    return seconds, lambda images: network.predict(images, batch_size=500, verbose=0)


if __name__ == "__main__":
    run_command(main)
