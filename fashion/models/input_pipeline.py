"""Batches of images and labels, read from the disk when they are needed."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from jaxtyping import Int64, UInt8

from fashion.data.dataset import Images, Split, prediction_batch

Indices = Int64[np.ndarray, "m"]


def batches(
    split: Split, batch_size: int | None = None, indices: Callable[[], Indices] | None = None
) -> tf.data.Dataset:
    """Return batches of images, uint8 (n, height, width, channels), and one-hot labels, float32 (n, classes).

    Args:
        split: the images.
        batch_size: number of images in a batch, the last of which may be smaller; by default `prediction_batch`.
        indices: returns the images to read, in that order; called for every batch. Its value may change between two
            passes, but not its length. By default all images are read, in the order of the split.
    """
    size, classes = batch_size or prediction_batch(split.image_shape), split.num_classes

    def read(start: np.int64) -> tuple[Images, UInt8[np.ndarray, "n"]]:
        part: slice | Indices = slice(start, start + size)
        if indices is not None:
            part = indices()[part]
        return split.images[part], split.labels[part]

    # AutoGraph's temporary file would stay behind in a Ray worker.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def load(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Not stateful, nor with variables: TensorFlow would not prefetch those in deterministic mode.
        images, labels = tf.numpy_function(read, [start], [tf.uint8, tf.uint8], stateful=False)
        labels = tf.one_hot(tf.ensure_shape(labels, (None,)), classes)
        return tf.ensure_shape(images, (None, *split.image_shape)), labels

    count = len(split.labels) if indices is None else len(indices())
    # TensorFlow's tuner has nothing to tune here, but the end of a pass can wait for it, for as long as the pass took.
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.range(0, count, size).map(load).prefetch(1).with_options(options)
