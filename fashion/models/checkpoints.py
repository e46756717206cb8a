"""Checkpoints: an interrupted training run resumes and ends with the same bytes as an uninterrupted one."""

import io
import time
import zipfile

import keras
import numpy as np
import pandas as pd

from fashion.data.dataset import npz
from fashion.errors import UserError
from fashion.files import NPY_ERRORS
from fashion.models.hard_examples import HardExampleSampler
from fashion.stores import Store

INTERVAL = 300  # minimum seconds between checkpoints; a shorter training run writes none
HISTORY = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


class Checkpoints(keras.callbacks.Callback):
    """Saves the state of the training run after an epoch, if the last checkpoint is older than `INTERVAL`.

    The state is all variables of the model and its optimiser, the ranking of the hard examples, the history, and the
    processor time so far.

    Attributes:
        history: the logs of each epoch, in the order of `HISTORY`.
    """

    def __init__(self, model: keras.Model, sampler: HardExampleSampler, store: Store | None) -> None:
        """Restore the last checkpoint in `store`, if there is one.

        Raises:
            UserError: it is damaged.
        """
        super().__init__()
        self.sampler, self.store = sampler, store
        self.history: list[list[float]] = []
        self.saved = time.monotonic()
        self.started = time.process_time() - seconds(store)
        model.optimizer.build(model.trainable_variables)
        if store and (content := store.read()):
            self._restore(model, content)

    @property
    def epochs(self) -> int:
        """Number of epochs done."""
        return len(self.history)

    def table(self) -> pd.DataFrame:
        """Return the history as a table, with the number of the epoch, from 1, as the first column."""
        table = pd.DataFrame(self.history, columns=HISTORY)
        table.insert(0, "epoch", range(1, self.epochs + 1))
        return table

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.history.append([logs[name] for name in HISTORY])
        if self.store and time.monotonic() - self.saved > INTERVAL and self.epochs < self.params["epochs"]:
            arrays = {f"variable{number}": np.asarray(value) for number, value in enumerate(_variables(self.model))}
            if self.sampler.ranking is not None:
                arrays["ranking"] = self.sampler.ranking
            arrays |= {"history": np.array(self.history), "seconds": np.array(time.process_time() - self.started)}
            self.store.write(npz(arrays))
            self.saved = time.monotonic()

    def _restore(self, model: keras.Model, content: bytes) -> None:
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                for number, variable in enumerate(_variables(model)):
                    variable.assign(arrays[f"variable{number}"])
                self.sampler.ranking = arrays.get("ranking")
                self.history = arrays["history"].tolist()
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{model.name}: its checkpoint is damaged ({error}); delete the .npz files in .dvc/tmp/checkpoints and "
                ".dvc/tmp/trials, and try again"
            ) from error
        print(f"{model.name}: resumes after epoch {self.epochs}", flush=True)


def seconds(store: Store | None) -> float:
    """Return the processor time of the training run up to the checkpoint in `store`; 0 without a valid one."""
    content = store.read() if store else None
    try:
        with np.load(io.BytesIO(content or b""), allow_pickle=False) as arrays:
            return float(arrays["seconds"])
    except (*NPY_ERRORS, KeyError, zipfile.BadZipFile):
        return 0.0


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Return all variables of a model, including the states of random generators, and of its optimiser."""
    return [*model.variables, *model.optimizer.variables]
