"""Batches of images and labels for training and evaluation."""

import tensorflow as tf

from fashion.data.dataset import Split
from fashion.models.augmentation import augment
from fashion.params import TrainingParams


def batches(
    split: Split, params: TrainingParams, *, training: bool = False, indices: tf.Variable | None = None
) -> tf.data.Dataset:
    """Return batches of images, uint8 (n, height, width, channels), and one-hot labels, float32 (n, classes).

    Args:
        split: the images.
        params: the batch size, the augmentation and the seed of both the order and the augmentation.
        training: shuffle and augment the images, differently in every pass.
        indices: the images to read, int64 (m,); by default all of them. A variable may change between passes, but not
            its length.
    """
    if indices is None:
        indices = tf.range(len(split.images))
    order = tf.data.Dataset.range(indices.shape[0])
    if training:
        order = order.shuffle(indices.shape[0], seed=params.seed)
    seeds = tf.data.Dataset.random(seed=params.seed, rerandomize_each_iteration=True)
    images, labels = tf.constant(split.images), tf.one_hot(split.labels, split.num_classes)

    def load(positions: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = tf.gather(indices, positions)
        batch = tf.gather(images, chosen)
        return augment(batch, params.augmentation, seed) if training else batch, tf.gather(labels, chosen)

    return tf.data.Dataset.zip(order.batch(params.batch_size), seeds).map(load).prefetch(1)
