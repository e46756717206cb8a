"""Hard-example mining: an epoch uses a fraction of the training images, most of them those with the highest loss.

Source: selective backprop (Jiang et al., arXiv:1910.00762), here per epoch instead of per batch.
"""

import keras
import numpy as np

from fashion.data.dataset import Split
from fashion.models.input_pipeline import Indices, batches
from fashion.params import TrainingParams


class HardExampleSampler(keras.callbacks.Callback):
    """Chooses the training images of each epoch: the hardest ones, and others at random.

    Every `refresh_every` epochs, the training images are ranked by the probability that the model assigns to their
    class, without augmentation and without class weights. Until the first ranking, all images of an epoch are drawn at
    random.

    Attributes:
        epoch: the current epoch, from 0.
        indices: the images of the current epoch, in random order.
    """

    def __init__(self, params: TrainingParams, train: Split) -> None:
        """Start with the first epoch."""
        super().__init__()
        self.settings = params
        self.labels, self.batches = train.labels, batches(train)
        self.ranking: Indices | None = None
        self.epoch, self.indices = 0, self._sample(0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        mining = self.settings.hard_examples
        ranked = mining.epoch_fraction < 1 and mining.hard_fraction > 0
        if ranked and epoch > 0 and epoch % mining.refresh_every == 0:
            probabilities = self.model.predict(self.batches, verbose=0)
            self.ranking = np.argsort(probabilities[np.arange(len(self.labels)), self.labels], kind="stable")
        self.epoch, self.indices = epoch, self._sample(epoch)

    def _sample(self, epoch: int) -> Indices:
        random = np.random.default_rng([self.settings.seed, epoch])
        count = images_per_epoch(self.settings, len(self.labels))
        if self.ranking is None:
            return random.permutation(len(self.labels))[:count]
        hardest, others = np.split(self.ranking, [round(self.settings.hard_examples.hard_fraction * count)])
        return random.permutation(np.append(hardest, random.choice(others, count - len(hardest), replace=False)))


def images_per_epoch(params: TrainingParams, images: int) -> int:
    """Return the number of images in an epoch, out of `images` training images: at least 1.

    A last batch of less than half the batch size is left out: its statistics would spoil the batch normalisation.
    """
    count = max(1, round(params.hard_examples.epoch_fraction * images))
    full, rest = divmod(count, params.batch_size)
    return count - rest if full and rest < params.batch_size / 2 else count
