"""Training a network, the same bytes for the same machine, code, params and data."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import keras
import pandas as pd
import tensorflow as tf

from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.models import optimizers
from fashion.models.augmentation import augment
from fashion.models.progress import Progress
from fashion.models.selection import Selector, images_per_epoch
from fashion.params import Training, misfits

P = TypeVar("P", bound=Training)

STEPS_PER_CALL = 10  # steps that TensorFlow takes between two returns to Python; changes time alone, no result


def train(
    build: Callable[[P, Split], keras.Model], params: P, train: Split, validation: Split
) -> tuple[keras.Model, pd.DataFrame]:
    """Build a network and train it on the categorical cross-entropy.

    Returns:
        The trained network and its history, a row per epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy,
        learning_rate. As always in Keras, loss and accuracy are means over the epoch, of the images that it sees, as
        augmented, and while the weights still move; val_loss and val_accuracy are measured at its end. Both losses
        are of smoothed labels. Where weights are averaged, the history is of those before, and the network has the
        average.
    """
    model = compiled(build, params, train)
    selector = Selector(params.selection, train, batches(train, params), params.seed)
    fitted = model.fit(
        batches(train, params, training=True, chosen=selector.chosen),
        epochs=params.epochs,
        validation_data=batches(validation, params),
        shuffle=False,  # the batches already are
        callbacks=[LearningRate(), Progress(selector.chosen.shape[0], params.batch_size, params.epochs), selector],
        verbose=0,
    )
    history = pd.DataFrame(fitted.history, columns=["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"])
    history.insert(0, "epoch", range(1, params.epochs + 1))
    return model, history


def compiled(build: Callable[[P, Split], keras.Model], params: P, train: Split) -> keras.Model:
    """Return the untrained network with its optimiser, loss and metric, ready to `fit`; sets Keras' seed and policy.

    Raises:
        UserError: a line for each param that does not fit the images.
    """
    if problems := misfits(params, train.image_shape):
        raise UserError("\n".join(problems))
    keras.backend.clear_session()  # number the layers from one, whatever was built before
    keras.utils.set_random_seed(params.seed)
    tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(policy(params.precision))
    model = build(params, train)
    steps = math.ceil(images_per_epoch(params.selection, len(train.images)) / params.batch_size) * params.epochs
    model.compile(
        optimizer=optimizers.create(params, steps),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing),
        metrics=["accuracy"],
        steps_per_execution=STEPS_PER_CALL,
    )
    return model


def batches(
    split: Split, params: Training, *, training: bool = False, chosen: tf.Variable | None = None
) -> tf.data.Dataset:
    """Return batches of images (uint8) and one-hot labels; for training, in a new order and augmented every time.

    They are those at the indices `chosen`, int64 (m,), by default all. A variable may be given new indices, as many as
    before, between two passes.
    """
    if chosen is None:
        chosen = tf.range(len(split.images))
    order = tf.data.Dataset.range(chosen.shape[0])
    if training:
        order = order.shuffle(chosen.shape[0], seed=params.seed)
    seeds = tf.data.Dataset.random(seed=params.seed, rerandomize_each_iteration=True)
    images, labels = tf.constant(split.images), tf.one_hot(split.labels, split.class_count)

    def load(positions: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        indices = tf.gather(chosen, positions)
        batch = tf.gather(images, indices)
        return augment(batch, params.augmentation, seed) if training else batch, tf.gather(labels, indices)

    return tf.data.Dataset.zip(order.batch(params.batch_size), seeds).map(load).prefetch(1)


def policy(precision: str) -> str:
    """Return Keras' name of the precision; `auto` is bfloat16 where the processor multiplies in it, else float32."""
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16() else "float32"
    return "mixed_bfloat16" if precision == "bfloat16" else precision


def _multiplies_bfloat16() -> bool:
    """Tell whether this is an x86 processor with bfloat16 instructions, in AVX-512 or AMX."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:  # not Linux
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


class LearningRate(keras.callbacks.Callback):
    """Adds the learning rate to what Keras logs of each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
