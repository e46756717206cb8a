"""Which of the training images an epoch sees."""

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from fashion.data.dataset import Split
from fashion.params import Selection


class Selector(keras.callbacks.Callback):
    """Lets each epoch see a share of the training images: those that the model finds hardest, and some others.

    The hardest are those to whose class it gives the least probability. They are found after every `every` epochs, on
    all images as they are; before that, all images of an epoch are drawn at random. What the model is sure of it would
    learn little from, and it meets such images often enough among the others.

    After selective backprop (Jiang et al., arXiv:1910.00762), here per epoch instead of per batch.

    Attributes:
        chosen: indices of the images of the epoch, int64 (m,); `training.batches` reads them with every batch.
    """

    def __init__(self, params: Selection, train: Split, batches: tf.data.Dataset, seed: int) -> None:
        """Prepare to choose among the images of `train`; `batches` has them all, in order and unchanged."""
        super().__init__()
        self.selection, self.labels, self.batches = params, train.labels, batches
        self.random = np.random.default_rng(seed)
        self.ranking: np.ndarray | None = None
        self.chosen = tf.Variable(self._choose(), trainable=False)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.selection.share < 1 and epoch > 0:
            if self.selection.hardest > 0 and epoch % self.selection.every == 0:
                probabilities = self.model.predict(self.batches, verbose=0)
                self.ranking = np.argsort(probabilities[np.arange(len(self.labels)), self.labels], kind="stable")
            self.chosen.assign(self._choose())

    def _choose(self) -> Int64[np.ndarray, "m"]:
        count = images_per_epoch(self.selection, len(self.labels))
        if self.ranking is None:
            return self.random.permutation(len(self.labels))[:count]
        hardest, others = np.split(self.ranking, [round(self.selection.hardest * count)])
        return np.append(hardest, self.random.choice(others, count - len(hardest), replace=False))


def images_per_epoch(params: Selection, images: int) -> int:
    """Return how many of `images` training images an epoch sees: at least one."""
    return max(1, round(params.share * images))
