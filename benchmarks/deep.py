"""Time the first epochs of studies/deep, and print the time of a whole training at that rate as JSON.

python -m benchmarks.deep
"""

import argparse
import json
import time
from pathlib import Path

from fashion import study
from fashion.data import dataset
from fashion.errors import run_command
from fashion.models import networks, training
from fashion.params import load_params

EPOCHS = 3


def main() -> None:
    """Train for `EPOCHS` epochs."""
    argparse.ArgumentParser(prog="python -m benchmarks.deep", description=__doc__).parse_args()
    train, validation = (dataset.load(Path(f"data/{name}")) for name in ("train", "validation"))
    params = load_params()
    changes = study.read(Path("studies/deep/params.yaml"), params.models).variants["deep"]
    model, epochs = changes.pop("model"), changes["epochs"]
    settings = networks.params_of(model, params, changes | {"epochs": EPOCHS})
    started = time.perf_counter()
    training.train(networks.load(model), settings, train, validation)
    seconds = (time.perf_counter() - started) * epochs / EPOCHS
    print(json.dumps({"seconds": seconds, "epochs": epochs, "timed_epochs": EPOCHS}))


if __name__ == "__main__":
    run_command(main)
