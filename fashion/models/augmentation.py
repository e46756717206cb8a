"""Random augmentation of training images."""

import tensorflow as tf

from fashion.params import AugmentationParams


def augment(images: tf.Tensor, params: AugmentationParams, seed: tuple[int, tf.Tensor]) -> tf.Tensor:
    """Return randomly flipped, translated and partly hidden images.

    Half of the images are mirrored. Translations are by whole pixels, uniform in both directions, and fill with black.
    The cutout square is black too and lies wholly within the image (DeVries and Taylor, arXiv:1708.04552).

    Args:
        images: uint8 (n, height, width, channels).
        params: what to do.
        seed: two integers; the same seed gives the same result.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    seeds = iter(tf.unstack(tf.random.experimental.stateless_split(seed, 5)))

    def draw(bound: int) -> tf.Tensor:
        """Return a random integer below `bound` per image, (n, 1)."""
        return tf.random.stateless_uniform((count, 1), next(seeds), 0, bound, tf.int32)

    rows, columns = tf.range(height), tf.range(width)
    sources = tf.where(draw(2) == 1, columns[::-1], columns) if params.flip else tf.tile(columns[None], (count, 1))
    if params.translate or params.flip:
        margin = params.translate
        images = tf.pad(images, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
        images = tf.gather(images, rows + draw(2 * margin + 1), axis=1, batch_dims=1)
        images = tf.transpose(images, (0, 2, 1, 3))  # so that whole columns are copied, which is four times as fast
        images = tf.gather(images, sources + draw(2 * margin + 1), axis=1, batch_dims=1)
        images = tf.transpose(images, (0, 2, 1, 3))
    if size := params.cutout:
        top, left = draw(height - size + 1), draw(width - size + 1)
        hidden_rows, hidden_columns = (rows >= top) & (rows < top + size), (columns >= left) & (columns < left + size)
        hidden = hidden_rows[:, :, None, None] & hidden_columns[:, None, :, None]
        images = tf.where(hidden, tf.zeros_like(images), images)
    return images
