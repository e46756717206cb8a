"""Progress display during training."""

import math
import sys
import time

import keras
from tqdm import tqdm

from fashion import parent
from fashion.errors import UserError

Logs = dict[str, float]


class DivergedError(UserError):
    """Training gave a loss or a metric that is not finite."""


class Progress(keras.callbacks.Callback):
    """Print a line per epoch and, on a terminal, show a bar with throughput and time left.

    Raises:
        DivergedError: the loss or a metric is not finite at the end of an epoch.
        UserError: DVC has been killed.
    """

    def __init__(self, images: int, batch_size: int, epochs: int) -> None:
        """Set up for `epochs` epochs of `images` training images each."""
        super().__init__()
        self.images, self.batch_size, self.epochs = images, batch_size, epochs

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.bar = tqdm(
            total=self.epochs * self.images,
            desc=self.model.name,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            disable=None,  # not on a terminal: no bar
        )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.started = time.monotonic()
        self.epochs_done = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        parent.check()
        done = self.epochs_done * self.images + min((batch + 1) * self.batch_size, self.images)
        self.bar.update(done - self.bar.n)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        measures = "  ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())
        tqdm.write(
            f"{self.model.name} epoch {epoch + 1}/{self.epochs}  {measures}  {time.monotonic() - self.started:.1f} s"
        )
        sys.stdout.flush()  # into a log file, too, while the training runs
        if logs and not all(map(math.isfinite, logs.values())):
            raise DivergedError(
                f"{self.model.name}: training diverged in epoch {epoch + 1} (a loss or metric is not finite); "
                "lower its learning_rate or adam_learning_rate"
            )

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.bar.close()
