"""Train a model or a baseline once, and print its training time and test accuracy as JSON.

    python -m benchmarks.trial NAME SEED

The time excludes imports and the reading of the data.
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
from fashion.params import Params, load_params

BASELINES = ("tutorial", "demo")
VARIANTS = {  # as in studies/short
    "cnn-short": {"model": "cnn", "epochs": 8, "filters": [16, 64, 128], "hard_examples": {"refresh_every": 4}}
}
Probabilities = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Run the trial."""
    params = load_params()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trial", description=__doc__)
    parser.add_argument("name", choices=names(params))
    parser.add_argument("seed", type=int)
    args = parser.parse_args()
    train, validation, test = (dataset.load(Path(f"data/{name}")) for name in ("train", "validation", "test"))
    if args.name in BASELINES:
        seconds, probabilities = _train_baseline(args.name, args.seed, train, validation)
    else:
        seconds, probabilities = _train_model(args.name, args.seed, params, train, validation)
    accuracy = float(np.mean(probabilities(test.images).argmax(axis=1) == test.labels))
    print(json.dumps({"name": args.name, "seed": args.seed, "seconds": seconds, "accuracy": accuracy}))


def names(params: Params) -> list[str]:
    """Return the names of all trials: the baselines, the models in params.yaml and their variants."""
    return [
        *BASELINES,
        *params.models,
        *(name for name, changes in VARIANTS.items() if changes["model"] in params.models),
    ]


def _train_baseline(name: str, seed: int, train: Split, validation: Split) -> tuple[float, Probabilities]:
    from benchmarks import baselines

    if name == "demo":  # its authors use no validation set
        train = Split(np.concatenate([train.images, validation.images]), np.append(train.labels, validation.labels))
    network, batch_size = (baselines.demo(), 128) if name == "demo" else (baselines.tutorial(), 32)
    started = time.perf_counter()
    baselines.train(network, batch_size, train, seed)
    seconds = time.perf_counter() - started
    return seconds, lambda images: network.predict(baselines.scaled(images), verbose=0)


def _train_model(name: str, seed: int, params: Params, train: Split, validation: Split) -> tuple[float, Probabilities]:
    from fashion.models import networks, training

    changes = {"seed": seed, **VARIANTS.get(name, {"model": name})}
    model = str(changes.pop("model"))
    settings = networks.params_of(model, params, changes)
    started = time.perf_counter()
    network, _ = training.train(networks.load(model), settings, train, validation)
    seconds = time.perf_counter() - started
    return seconds, lambda images: network.predict(images, batch_size=500, verbose=0)


if __name__ == "__main__":
    run_command(main)
