"""A study whose trials wait to be killed, for tests/test_trials.py. Ray's nodes import it, so it imports no test."""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion import trials
from fashion.data.dataset import Split
from fashion.errors import run_command
from fashion.params import load_params
from fashion.stores import Store
from fashion.trials import Trial

PAUSES = "TEST_PAUSES"  # environment variable of the node whose first trial waits to be killed
CHANGES = {"epochs": 6, "hard_examples": {"refresh_every": 2}}


@dataclass(frozen=True)
class PausingStore:
    """Passes checkpoints on; after the first one, writes its process id to a file and waits to be killed."""

    store: Store
    file: Path

    def read(self) -> bytes | None:
        return self.store.read()

    def write(self, content: bytes) -> None:
        self.store.write(content)
        self.file.write_text(str(os.getpid()))
        while True:  # a signal that is handled ends the pause
            signal.pause()


def train(trial: Trial, data: tuple[Mapping[str, Split], Path], store: Store) -> dict[str, Any]:
    """Train with a checkpoint after each epoch; return a hash of the weights and whether the training was continued.

    Args:
        trial: of one of the project's networks.
        data: the splits, and the file of `PausingStore`.
        store: of checkpoints.
    """
    from fashion.models import checkpoints, networks, training

    checkpoints.INTERVAL = -1
    (splits, paused), continued = data, store.read() is not None
    if PAUSES in os.environ and not continued:
        store = PausingStore(store, paused)
    while PAUSES not in os.environ and not paused.exists():  # so that each node gets one of the trials
        time.sleep(0.1)
    model, history = training.train(
        networks.load(trial.model), trial.settings, splits["train"], splits["validation"], store
    )
    weights = b"".join(array.tobytes() for array in model.get_weights())
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "continued": continued,
        "val_accuracy": float(history["val_accuracy"].iloc[-1]),
    }


def main() -> None:
    """Run two equal trials and print their results as JSON; the argument is the file of `PausingStore`."""
    from fashion.models import networks

    params = load_params()
    model = next(iter(params.models))
    settings = networks.params_of(model, params, CHANGES)
    equal = [Trial(name, model, settings.seed, settings, name) for name in ("one", "two")]
    folders = {name: Path("data", name) for name in ("train", "validation")}
    print(json.dumps(trials.run(equal, lambda: (trials.load(folders), Path(sys.argv[1])), train)))


if __name__ == "__main__":
    from tests import trainings  # under its own name, by which Ray's nodes import it

    run_command(trainings.main)
