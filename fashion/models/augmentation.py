"""Random augmentation of training images."""

import tensorflow as tf

from fashion.params import AugmentationParams


def augment(
    images: tf.Tensor, labels: tf.Tensor, params: AugmentationParams, seed: tuple[int, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return randomly flipped, translated and partly hidden or mixed images, and their labels.

    Half of the images are mirrored. Translations are by whole pixels, uniform in both directions, and fill with black.
    Then a batch is changed by `cutmix` with the probability `params.cutmix`, otherwise by `cutout`.

    Args:
        images: uint8 (n, height, width, channels).
        labels: float32 (n, classes).
        params: what to do.
        seed: two integers; the same seed gives the same result.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    seeds = iter(tf.unstack(tf.random.experimental.stateless_split(seed, 6)))

    def draw(bound: int) -> tf.Tensor:
        """Return a random integer below `bound` per image, (n, 1)."""
        return tf.random.stateless_uniform((count, 1), next(seeds), 0, bound, tf.int32)

    columns = tf.range(width)
    sources = tf.where(draw(2) == 1, columns[::-1], columns) if params.flip else tf.tile(columns[None], (count, 1))
    if params.translate or params.flip:
        margin = params.translate
        images = tf.pad(images, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
        images = tf.gather(images, tf.range(height) + draw(2 * margin + 1), axis=1, batch_dims=1)
        images = tf.transpose(images, (0, 2, 1, 3))  # so that whole columns are copied, which is four times as fast
        images = tf.gather(images, sources + draw(2 * margin + 1), axis=1, batch_dims=1)
        images = tf.transpose(images, (0, 2, 1, 3))

    def hide() -> tuple[tf.Tensor, tf.Tensor]:
        return (cutout(images, params.cutout, next(seeds)) if params.cutout else images), labels

    if not params.cutmix:
        return hide()
    mixed = tf.random.stateless_uniform((), next(seeds)) < params.cutmix
    changed: tuple[tf.Tensor, tf.Tensor] = tf.cond(mixed, lambda: cutmix(images, labels, next(seeds)), hide)
    return changed


def cutout(images: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Black out a square of `size` pixels in each image, around a random pixel; it may extend beyond the edges.

    Source: DeVries and Taylor, arXiv:1708.04552.
    """
    return tf.where(_boxes(images, tf.shape(images)[0], size, size, seed), tf.zeros_like(images), images)


def cutmix(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Replace a box in each image by that of its counterpart in the reversed batch; mix their labels in proportion.

    The box is the same in the whole batch. Its share of the area is uniform in [0, 1), before it is cut at the edges.
    Source: Yun et al., arXiv:1905.04899.
    """
    first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    side = tf.sqrt(tf.random.stateless_uniform((), first))
    height, width = (tf.cast(side * length, tf.int32) for length in images.shape[1:3])
    box = _boxes(images, 1, height, width, second)
    share = tf.reduce_mean(tf.cast(box, labels.dtype))
    return tf.where(box, images[::-1], images), share * labels[::-1] + (1 - share) * labels


def _boxes(
    images: tf.Tensor, count: int | tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Return which pixels lie in a box around a random pixel, bool (count, *height, *width, 1) of the images."""
    inside = []
    for length, size, part in zip(
        images.shape[1:3], (height, width), tf.unstack(tf.random.experimental.stateless_split(seed, 2)), strict=True
    ):
        start = tf.random.stateless_uniform((count, 1), part, 0, length, tf.int32) - size // 2
        inside.append((tf.range(length) >= start) & (tf.range(length) < start + size))
    return inside[0][:, :, None, None] & inside[1][:, None, :, None]
