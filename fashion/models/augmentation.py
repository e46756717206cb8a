"""Random changes of the training images that leave their class as it is."""

import tensorflow as tf

from fashion.params import Augmentation


def augment(images: tf.Tensor, params: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Return `images`, uint8 (n, height, width), each mirrored, shifted and partly hidden at random.

    Half of the images are mirrored. Shifts are of whole pixels, in both directions and all equally likely; what comes
    in at the edge is black. So is the hidden square, which lies wholly within the image (cutout: DeVries and Taylor,
    arXiv:1708.04552). The same `seed`, an integer, gives the same changes.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[1:]
    seeds = iter(tf.unstack(tf.random.experimental.stateless_split([seed, 0], 5)))

    def draw(bound: int) -> tf.Tensor:
        """Return a random integer below `bound` per image, (n, 1)."""
        return tf.random.stateless_uniform((count, 1), next(seeds), 0, bound, tf.int32)

    rows, columns = tf.range(height), tf.range(width)
    sources = tf.where(draw(2) == 1, columns[::-1], columns) if params.flip else tf.tile(columns[None], (count, 1))
    if params.shift or params.flip:
        margin = params.shift
        images = tf.pad(images, [[0, 0], [margin, margin], [margin, margin]])
        images = tf.gather(images, rows + draw(2 * margin + 1), axis=1, batch_dims=1)
        images = tf.gather(images, sources + draw(2 * margin + 1), axis=2, batch_dims=1)
    if size := params.cutout:
        top, left = draw(height - size + 1), draw(width - size + 1)
        hidden_rows, hidden_columns = (rows >= top) & (rows < top + size), (columns >= left) & (columns < left + size)
        images = tf.where(hidden_rows[:, :, None] & hidden_columns[:, None, :], tf.zeros_like(images), images)
    return images
