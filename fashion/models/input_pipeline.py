"""Batches of images and labels, read from the disk when they are needed."""

import numpy as np
import tensorflow as tf
from jaxtyping import Int64, UInt8

from fashion.data.dataset import Images, Split

BATCH_SIZE = 500  # of predictions; affects speed and memory


def batches(split: Split, batch_size: int = BATCH_SIZE, indices: tf.Variable | None = None) -> tf.data.Dataset:
    """Return batches of images, uint8 (n, height, width, channels), and one-hot labels, float32 (n, classes).

    Args:
        split: the images.
        batch_size: number of images in a batch; the last may be smaller.
        indices: the images to read, in that order, int64 (m,); its value may change between two passes, but not its
            length. By default all images, in the order of the split.
    """
    count, classes = len(split.labels) if indices is None else indices.shape[0], split.num_classes

    def read(chosen: Int64[np.ndarray, "n"]) -> tuple[Images, UInt8[np.ndarray, "n"]]:
        return split.images[chosen], split.labels[chosen]

    def load(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stop = tf.minimum(start + batch_size, count)
        chosen = tf.range(start, stop) if indices is None else indices[start:stop]
        images, labels = tf.numpy_function(read, [chosen], [tf.uint8, tf.uint8])
        labels = tf.one_hot(tf.ensure_shape(labels, (None,)), classes)
        return tf.ensure_shape(images, (None, *split.image_shape)), labels

    return tf.data.Dataset.range(0, count, batch_size).map(load).prefetch(1)
