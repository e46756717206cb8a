"""Hard-example mining: an epoch uses a fraction of the training images, most of them those with the highest loss.

Source: selective backprop (Jiang et al., arXiv:1910.00762), here per epoch instead of per batch.
"""

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from fashion.data.dataset import Split
from fashion.models.input_pipeline import batches
from fashion.params import HardExampleParams, TrainingParams


class HardExampleSampler(keras.callbacks.Callback):
    """Chooses the training images of each epoch: the hardest ones, and others at random.

    Every `refresh_every` epochs, the training images are ranked by the probability that the model assigns to their
    class, without augmentation and without class weights. Until the first ranking, all images of an epoch are drawn at
    random.

    Attributes:
        indices: the images of the current epoch, int64 (m,).
    """

    def __init__(self, params: TrainingParams, train: Split) -> None:
        """Draw the images of the first epoch."""
        super().__init__()
        self.settings, self.labels, self.batches = params.hard_examples, train.labels, batches(train, params)
        self.random = np.random.default_rng(params.seed)
        self.ranking: np.ndarray | None = None
        self.indices = tf.Variable(self._sample(), trainable=False)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.settings.epoch_fraction < 1 and epoch > 0:
            if self.settings.hard_fraction > 0 and epoch % self.settings.refresh_every == 0:
                probabilities = self.model.predict(self.batches, verbose=0)
                self.ranking = np.argsort(probabilities[np.arange(len(self.labels)), self.labels], kind="stable")
            self.indices.assign(self._sample())

    def _sample(self) -> Int64[np.ndarray, "m"]:
        count = images_per_epoch(self.settings, len(self.labels))
        if self.ranking is None:
            return self.random.permutation(len(self.labels))[:count]
        hardest, others = np.split(self.ranking, [round(self.settings.hard_fraction * count)])
        return np.append(hardest, self.random.choice(others, count - len(hardest), replace=False))


def images_per_epoch(params: HardExampleParams, images: int) -> int:
    """Return the number of images in an epoch, out of `images` training images: at least 1."""
    return max(1, round(params.epoch_fraction * images))
