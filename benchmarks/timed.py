"""What the trials of benchmarks/trials.py run. Ray's workers import this module."""

import os
import time
from collections.abc import Mapping
from typing import Any

from fashion.data.dataset import Split
from fashion.stores import Store
from fashion.trials import Trial


def train(trial: Trial, splits: Mapping[str, Split], store: Store) -> dict[str, Any]:
    """Train; return when it started and ended, in seconds since the epoch, and in which process."""
    from fashion.models import networks, training

    network = networks.load(trial.model)
    started = time.time()
    _, history = training.train(network, trial.settings, splits["train"], splits["validation"], store)
    ended = time.time()
    return {
        "val_accuracy": float(history["val_accuracy"].iloc[-1]),
        "started": started,
        "ended": ended,
        "process": os.getpid(),
    }


def checkpoint(trial: Trial, splits: Mapping[str, Split], _store: Store) -> dict[str, Any]:
    """Train with a checkpoint after each epoch but the last; return the last checkpoint's number of bytes."""
    from fashion.models import checkpoints

    checkpoints.INTERVAL = 0
    store = Memory()
    return {**train(trial, splits, store), "bytes": len(store.content)}


class Memory:
    """Keeps a checkpoint in memory."""

    content = b""

    def read(self) -> bytes | None:
        """Return nothing: the training starts afresh."""
        return None

    def write(self, content: bytes) -> None:
        """Replace the checkpoint."""
        self.content = content


def nothing(_trial: Trial, _data: object, _store: Store) -> dict[str, Any]:
    """Return the time."""
    return {"val_accuracy": 0.0, "ended": time.time()}


def receive(_data: object) -> None:
    """Do nothing with data, which Ray has sent to the node."""


def send(writer: Any, content: bytes) -> float:
    """Send a checkpoint to the driver's node; return the seconds until it is written."""
    import ray

    started = time.perf_counter()
    ray.get(writer.write.remote("benchmark", content))
    return time.perf_counter() - started
