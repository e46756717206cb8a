"""Training a network. The same machine, code, params and data give the same bytes."""

import math
from collections.abc import Callable, Sequence
from types import ModuleType

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.models import optimizers, processor
from fashion.models.augmentation import augment
from fashion.models.checkpoints import Checkpoints
from fashion.models.hard_examples import HardExampleSampler, images_per_epoch
from fashion.models.input_pipeline import batches
from fashion.models.optimizers import OUTPUT
from fashion.models.progress import Progress
from fashion.params import TestTimeAugmentationParams, TrainingParams
from fashion.stores import Store
from fashion.validation import raise_problems

STEPS_PER_EXECUTION = 10  # affects the speed only
SAMPLE = 2000  # training images for the metrics of each epoch


def train(
    network: ModuleType,
    params: TrainingParams,
    train: Split,
    validation: Split,
    store: Store | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_epoch: Callable[[pd.DataFrame], None] = lambda history: None,
) -> tuple[keras.Model, pd.DataFrame]:
    """Build a network and train it with categorical cross-entropy.

    Args:
        network: a module such as `fashion.models.cnn`, with `build`.
        params: of the training and of the network.
        train: the training split.
        validation: the validation split.
        store: of checkpoints; the training resumes from the one in it, and ends with the same bytes.
        callbacks: further callbacks, called after this project's own.
        on_epoch: called after each epoch with the history so far.

    Returns:
        The trained network, uncompiled, and its history, a row per epoch: epoch (from 1), loss, accuracy, val_loss,
        val_accuracy, learning_rate. All are measured at the epoch's end: loss and accuracy on a fixed sample of the
        training images, without augmentation or class weights. Both losses use the smoothed labels. The trained
        network has the test-time augmentation; the history is measured without, which takes less time.
    """
    model = build_and_compile(network, params, train)
    trained = with_test_time_augmentation(model, params.test_time_augmentation)
    sampler = HardExampleSampler(params, train)
    checkpoints = Checkpoints(model, sampler, store)
    progress = Progress(sampler.indices.shape[0], params.batch_size, params.epochs)
    model.fit(
        training_batches(train, params, sampler),
        epochs=params.epochs,
        initial_epoch=checkpoints.epochs,
        validation_data=batches(validation),
        shuffle=False,  # the sampler shuffles
        class_weight=class_weights(params, train),
        callbacks=[
            TrainingMetrics(train, params.seed),
            progress,
            sampler,
            checkpoints,
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch(checkpoints.table())),
            *callbacks,
        ],
        verbose=0,
    )
    trained.set_weights(model.get_weights())
    return trained, checkpoints.table()


def build_and_compile(network: ModuleType, params: TrainingParams, train: Split) -> keras.Model:
    """Return the untrained network with its optimiser, loss and metric; sets Keras' seed and dtype policy.

    Raises:
        UserError: a line for each param that does not fit the images, or as for `check_last_layers`.
    """
    raise_problems(params.image_problems(train.image_shape))
    keras.backend.clear_session()  # restarts the numbering of the layers
    keras.utils.set_random_seed(params.seed)
    tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(dtype_policy(params.precision))
    model: keras.Model = network.build(params, train)
    check_last_layers(model, network)
    steps = math.ceil(images_per_epoch(params, len(train.images)) / params.batch_size) * params.epochs
    model.compile(
        optimizer=optimizers.create(params, steps),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing),
        metrics=["accuracy"],
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    return model


def check_last_layers(model: keras.Model, network: ModuleType) -> None:
    """Check that a network ends as test-time augmentation and the export expect.

    Raises:
        UserError: the layer `OUTPUT` is missing or no dense layer, or has an activation, or no softmax follows it.
    """
    output, last = [None, *model.layers][-2:]
    linear = isinstance(output, keras.layers.Dense) and output.activation is keras.activations.linear
    if not (linear and output.name == OUTPUT and isinstance(last, keras.layers.Softmax)):
        raise UserError(
            f"{network.__name__}: found the last layers {output!r} and {last!r}, expected Dense(classes, "
            f"name={OUTPUT!r}) without an activation, then Softmax"
        )


def with_test_time_augmentation(model: keras.Model, params: TestTimeAugmentationParams) -> keras.Model:
    """Return `model`, uncompiled, with its logits averaged over changed copies of an image.

    These are the image, two translations of it along the diagonal, which weigh half, and the mirror images of all.
    It averages the inputs of the layer `OUTPUT`: that layer is linear, so this averages the logits. The weights are a
    copy, if there is anything to average. Source: cifar10-airbench.
    """
    if not (params.mirror or params.translate):
        return keras.Model(model.inputs, model.outputs, name=model.name)
    output = model.get_layer(OUTPUT)
    inputs = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype)
    copies = [inputs]
    if params.translate:
        copies += [translated(inputs, pixels) for pixels in (-params.translate, params.translate)]
    if params.mirror:
        copies += [keras.ops.flip(copy, axis=2) for copy in copies]
    features = keras.Model(model.inputs, output.input, name="features")
    parts = keras.ops.split(features(keras.ops.concatenate(copies)), len(copies))
    twice = parts[::3] if params.translate else []
    mean = keras.layers.Average()([*parts, *twice])
    logits = type(output).from_config(output.get_config())(mean)  # a new layer, whose input is `mean` alone
    return keras.Model(inputs, keras.layers.Softmax(dtype="float32")(logits), name=model.name)


def translated(images: keras.KerasTensor, pixels: int) -> keras.KerasTensor:
    """Return images that are moved along the diagonal; the pixels at the edge are repeated."""
    for axis in (1, 2):
        length = images.shape[axis]
        images = keras.ops.take(images, np.clip(np.arange(length) + pixels, 0, length - 1).tolist(), axis)
    return images


def training_batches(train: Split, params: TrainingParams, sampler: HardExampleSampler) -> tf.data.Dataset:
    """Return augmented batches of the sampler's current epoch.

    Order and augmentation depend only on the seed, the epoch, the step and the ranking of the hard examples.
    """
    images = batches(train, params.batch_size, lambda: sampler.indices)

    def position(step: np.int64) -> np.int64:
        return sampler.epoch * len(images) + step

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def load(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        number = tf.ensure_shape(tf.numpy_function(position, [step], tf.int64, stateful=False), ())
        return augment(batch[0], params.augmentation, (params.seed, number)), batch[1]

    return images.enumerate().map(load).prefetch(1)


def class_weights(params: TrainingParams, train: Split) -> dict[int, float] | None:
    """Return the weight of each class in the training loss, None for equal weights.

    With `class_weights: balanced`, every class has the same total weight over the training split, and the mean weight
    of an image is 1: n / (classes * images of the class), as in scikit-learn.
    """
    if params.class_weights == "none":
        return None
    counts = np.bincount(train.labels)
    return dict(enumerate((counts.sum() / (len(counts) * counts)).tolist()))


def dtype_policy(precision: str) -> str:
    """Return Keras' dtype policy; `auto` is bfloat16 where the GPU or else the processor supports it, else float32."""
    if precision == "auto":
        precision = "bfloat16" if processor.has_bfloat16() else "float32"
    return "mixed_bfloat16" if precision == "bfloat16" else precision


def fix_precision(params: TrainingParams) -> TrainingParams:
    """Replace `precision: auto` by that of this machine, for trials that must not depend on the node that runs them."""
    return params.model_copy(update={"precision": dtype_policy(params.precision).removeprefix("mixed_")})


class TrainingMetrics(keras.callbacks.Callback):
    """Replaces the epoch's training loss and accuracy with values measured at its end, and adds the learning rate.

    Keras averages over the epoch's augmented, mostly hard images, while the weights change.
    """

    def __init__(self, train: Split, seed: int) -> None:
        """Draw the sample: `SAMPLE` training images, or all if there are fewer."""
        super().__init__()
        count = len(train.labels)
        sample = np.sort(np.random.default_rng(seed).choice(count, min(SAMPLE, count), replace=False))
        self.batches = batches(train, indices=lambda: sample)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs.update(self.model.evaluate(self.batches, verbose=0, return_dict=True))
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
