"""Training a network, the same bytes for the same machine, code, params and data."""

from collections.abc import Callable
from typing import TypeVar

import keras
import pandas as pd
import tensorflow as tf

from fashion.data.dataset import Split
from fashion.models.progress import Progress
from fashion.params import Training

P = TypeVar("P", bound=Training)

STEPS_PER_CALL = 10  # steps that TensorFlow takes between two returns to Python; changes time alone, no result


def train(
    build: Callable[[P, tuple[int, int], int], keras.Model], params: P, train: Split, validation: Split
) -> tuple[keras.Model, pd.DataFrame]:
    """Build a network and train it with Adam on the sparse categorical cross-entropy.

    Returns:
        The trained network and its history, a row per epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy,
        learning_rate. As always in Keras, loss and accuracy are means over the epoch while the weights still move;
        val_loss and val_accuracy are measured at its end.
    """
    keras.backend.clear_session()  # number the layers from one, whatever was built before
    keras.utils.set_random_seed(params.seed)
    tf.config.experimental.enable_op_determinism()
    model = build(params, train.image_shape, train.class_count)
    model.compile(
        optimizer=keras.optimizers.Adam(params.learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=STEPS_PER_CALL,
    )
    fitted = model.fit(
        train.images,
        train.labels,
        batch_size=params.batch_size,
        epochs=params.epochs,
        validation_data=(validation.images, validation.labels),
        callbacks=[LearningRate(), Progress(len(train.images), params.batch_size, params.epochs)],
        verbose=0,
    )
    history = pd.DataFrame(fitted.history, columns=["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"])
    history.insert(0, "epoch", range(1, params.epochs + 1))
    return model, history


class LearningRate(keras.callbacks.Callback):
    """Adds the learning rate to what Keras logs of each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
