"""Train a model or a baseline once, and print its training time and test accuracy as JSON.

    python -m benchmarks.trial NAME SEED [--epochs N]

The time excludes imports and the reading of the data.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fashion import study
from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import run_command
from fashion.params import Params, load_params

BASELINES = ("tutorial", "demo")
Probabilities = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Run the trial."""
    params = load_params()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trial", description=__doc__)
    studied = variants("short", params) | variants("deep", params)
    parser.add_argument("name", choices=[*BASELINES, *params.models, *studied])
    parser.add_argument("seed", type=int)
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the model's own; not for a baseline")
    args = parser.parse_args()
    train, validation, test = (dataset.load(Path(f"data/{name}")) for name in ("train", "validation", "test"))
    if args.name in BASELINES:
        seconds, probabilities = _train_baseline(args.name, args.seed, train, validation)
    else:
        changes = {"model": args.name} | studied.get(args.name, {}) | {"seed": args.seed}
        changes |= {"epochs": args.epochs} if args.epochs else {}
        seconds, probabilities = _train_model(changes, params, train, validation)
    accuracy = float(np.mean(probabilities(test.images).argmax(axis=1) == test.labels))
    print(json.dumps({"name": args.name, "seed": args.seed, "seconds": seconds, "accuracy": accuracy}))


def names(params: Params) -> list[str]:
    """Return what is trained as a whole: the baselines, the models in params.yaml and the variants of studies/short."""
    return [*BASELINES, *params.models, *variants("short", params)]


def variants(name: str, params: Params) -> dict[str, dict[str, Any]]:
    """Return the variants of a study, if the project has it: their model and what they change in its params."""
    path = Path("studies", name, "params.yaml")
    return study.read(path, params.models).variants if path.exists() else {}


def _train_baseline(name: str, seed: int, train: Split, validation: Split) -> tuple[float, Probabilities]:
    from benchmarks import baselines

    if name == "demo":  # its authors use no validation set
        train = Split(np.concatenate([train.images, validation.images]), np.append(train.labels, validation.labels))
    network, batch_size = (baselines.demo(), 128) if name == "demo" else (baselines.tutorial(), 32)
    started = time.perf_counter()
    baselines.train(network, batch_size, train, seed)
    seconds = time.perf_counter() - started
    return seconds, lambda images: network.predict(baselines.scaled(images), verbose=0)


def _train_model(
    changes: dict[str, Any], params: Params, train: Split, validation: Split
) -> tuple[float, Probabilities]:
    from fashion.models import networks, training

    model = str(changes.pop("model"))
    settings = networks.params_of(model, params, changes)
    started = time.perf_counter()
    network, _ = training.train(networks.load(model), settings, train, validation)
    seconds = time.perf_counter() - started
    return seconds, lambda images: network.predict(images, batch_size=500, verbose=0)


if __name__ == "__main__":
    run_command(main)
