"""The methods: each trains a classifier on a subset of the training images.

Their models differ in their inputs: feature maps for the linear probe and fine-tuning, raw pixels for the networks that
are trained from random weights.
"""

import base64
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fashion.data.dataset import Images
from fashion.errors import UserError
from fashion.models import checkpoints, networks, training
from fashion.models.progress import Progress
from fashion.stores import Store
from fashion.trials import Trial
from studies.transfer.backbones import split
from studies.transfer.features import Inputs

BATCH_SIZE = 500  # of predictions
MOMENTUM = 0.9  # of batch normalisation, so that its statistics adapt within a few hundred steps
MIN_IMAGES = 10_000  # per epoch of this project's networks; fewer images are repeated
MAX_VALIDATION_IMAGES = 500  # after each of these epochs; the accuracy of the trained model is that on all

Indices = Int64[np.ndarray, "m"]
Mirrored = Bool[np.ndarray, "m"]


def train(trial: Trial, inputs: Inputs, store: Store) -> dict[str, Any]:
    """Train with one method and evaluate the model.

    Args:
        trial: its model is the name of the method, its settings are `Settings`.
        inputs: images and feature maps.
        store: of checkpoints.

    Returns:
        val_accuracy; accuracy on the test set; seconds (processor time of the training, summed over threads, including
        the computation of the feature maps that it uses); correct (see `pack`).

    Raises:
        UserError: as for `subset`.
    """
    keras.utils.clear_session()
    keras.config.set_dtype_policy("float32")  # depthwise convolutions are slower in bfloat16
    keras.utils.set_random_seed(trial.seed)
    tf.config.experimental.enable_op_determinism()
    indices = subset(inputs.splits["train"].labels, trial.settings.images, trial.seed)
    started = time.process_time() - checkpoints.seconds(store)
    model, maps = METHODS.get(trial.model, train_own)(trial, inputs, indices, store)
    seconds = time.process_time() - started + maps * inputs.seconds
    validation, test = (_correct(model, inputs, name) for name in ("validation", "test"))
    return {
        "val_accuracy": round(float(validation.mean()), 6),
        "accuracy": round(float(test.mean()), 6),
        "seconds": round(seconds, 1),
        "correct": pack(test),
    }


def subset(labels: np.ndarray, images: int | Literal["all"], seed: int) -> Indices:
    """Return the indices of a random subset with the same number of images of each class.

    Args:
        labels: of all images.
        images: number of images per class.
        seed: of the choice; every method gets the same images.

    Raises:
        UserError: a class has fewer images.
    """
    if images == "all":
        return np.arange(len(labels))
    if images > (fewest := int(np.bincount(labels).min())):
        raise UserError(f"found a class with {fewest} images, expected {images}; use at most {fewest}, or all")
    generator = np.random.default_rng(seed)
    chosen = [generator.choice(np.flatnonzero(labels == label), images, replace=False) for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def pack(correct: Bool[np.ndarray, "n"]) -> str:
    """Return which images are classified correctly as text: a bit per image, in base64."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack(text: str) -> Bool[np.ndarray, "n"]:
    """Return what `pack` packed; up to seven images more, classified incorrectly."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8)).astype(bool)


def probe(trial: Trial, inputs: Inputs, indices: Indices, _store: Store) -> tuple[keras.Model, int]:
    """Fit a logistic regression to the features, with the C of the highest validation accuracy.

    Returns:
        The model, and how many feature maps were needed to train it.
    """
    network, scaler = _trainable(inputs), StandardScaler()
    features = scaler.fit_transform(_predict(network, inputs.maps["train"][indices]))
    validation_features = scaler.transform(_predict(network, inputs.maps["validation"]))
    labels, validation_labels = inputs.splits["train"].labels[indices], inputs.splits["validation"].labels
    regression, fits = LogisticRegression(max_iter=200, warm_start=True), []
    with threadpool_limits(1):  # a trial has one core
        for strength in sorted(trial.settings.training.C):
            regression.set_params(C=strength).fit(features, labels)
            score = regression.score(validation_features, validation_labels)
            fits.append((score, regression.coef_.T.copy(), regression.intercept_.copy()))
    _, kernel, bias = max(fits, key=lambda fit: fit[0])
    kernel /= scaler.scale_[:, None]  # the classifier includes the scaling
    model = _with_classifier(network, inputs, "probe")
    model.get_layer("output").set_weights([kernel, bias - scaler.mean_ @ kernel])
    return model, len(labels) + len(validation_labels)


def finetune(trial: Trial, inputs: Inputs, indices: Indices, _store: Store) -> tuple[keras.Model, int]:
    """Fine-tune the trainable part, except for its depthwise kernels; return as `probe` does.

    These are 4 % of its weights, and their gradients are slow to compute on a CPU.
    """
    network = _trainable(inputs)
    for layer in _layers(network):
        layer.trainable = not isinstance(layer, keras.layers.DepthwiseConv2D)

    def load(indices: Indices, mirrored: Mirrored) -> Float32[np.ndarray, "m height width filters"]:
        pairs = zip(indices, mirrored, strict=True)
        return np.stack([inputs.maps["mirrored" if m else "train"][i] for i, m in pairs]).astype(np.float32)

    return _fit(network, trial, load, inputs, indices), 2 * len(indices)


def train_random(trial: Trial, inputs: Inputs, indices: Indices, _store: Store) -> tuple[keras.Model, int]:
    """Train the whole network from random weights; return as `probe` does."""
    train = inputs.splits["train"]
    frozen, trainable = split(inputs.backbone, train.image_shape, trial.settings.training.image_size, None)

    def load(indices: Indices, mirrored: Mirrored) -> Images:
        images = train.images[indices]
        return np.asarray(np.where(mirrored[:, None, None, None], images[:, :, ::-1], images))

    return _fit(keras.Model(frozen.input, trainable(frozen.output)), trial, load, inputs, indices), 0


def train_own(trial: Trial, inputs: Inputs, indices: Indices, store: Store) -> tuple[keras.Model, int]:
    """Train one of this project's networks; return as `probe` does."""
    repeated = np.tile(indices, -(-MIN_IMAGES // len(indices)))
    validation = inputs.splits["validation"]
    model, _ = training.train(
        networks.load(trial.model),
        trial.settings.training,
        inputs.splits["train"].take(repeated),
        validation.take(np.arange(min(MAX_VALIDATION_IMAGES, len(validation.labels)))),
        store,
    )
    return model, 0


Method = Callable[[Trial, Inputs, Indices, Store], tuple[keras.Model, int]]
METHODS: dict[str, Method] = {"probe": probe, "finetuned": finetune, "random": train_random}


def _fit(
    network: keras.Model,
    trial: Trial,
    load: Callable[[Indices, Mirrored], np.ndarray],
    inputs: Inputs,
    indices: Indices,
) -> keras.Model:
    """Add a linear classifier to a network and train both.

    Args:
        network: extracts features.
        trial: what to train.
        load: returns the network's inputs for training images, each mirrored or not.
        inputs: for the labels.
        indices: the training images.
    """
    settings, labels = trial.settings.training, inputs.splits["train"].labels
    size = settings.batch_size
    steps = max(settings.min_steps, settings.epochs * -(-len(indices) // size))
    generator = np.random.default_rng(trial.seed)
    order = np.concatenate([generator.permutation(indices) for _ in range(-(-steps * size // len(indices)))])
    mirrored = generator.random(len(order)) < 0.5
    one_hot = np.eye(inputs.splits["train"].num_classes, dtype=np.float32)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, steps * size, size):
            batch = slice(start, start + size)
            yield load(order[batch], mirrored[batch]), one_hot[labels[order[batch]]]

    for layer in _layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    model = _with_classifier(network, inputs, trial.model)
    warmup_steps, peak = int(settings.warmup_fraction * steps), settings.learning_rate
    schedule = keras.optimizers.schedules.CosineDecay(
        peak / 10, steps - warmup_steps, warmup_target=peak, warmup_steps=warmup_steps
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay),
        keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
    )
    signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in (model.input, model.output))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    data = data.apply(tf.data.experimental.assert_cardinality(steps))
    options = tf.data.Options()
    options.autotune.enabled = False  # it has nothing to tune, and delays the end of the training
    progress = Progress(steps * size, size, epochs=1)  # to Keras, the whole training is one epoch
    model.fit(data.with_options(options), shuffle=False, callbacks=[progress], verbose=0)
    return model


def _trainable(inputs: Inputs) -> keras.Model:
    """Return the pretrained part of the backbone whose inputs are feature maps."""
    return split(inputs.backbone, inputs.splits["train"].image_shape, inputs.image_size, "imagenet")[1]


def _with_classifier(network: keras.Model, inputs: Inputs, name: str) -> keras.Model:
    classifier = keras.layers.Dense(inputs.splits["train"].num_classes, activation="softmax", name="output")
    return keras.Model(network.input, classifier(network.output), name=name)


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model, nested ones included."""
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else (layer,)


def _correct(model: keras.Model, inputs: Inputs, name: str) -> Bool[np.ndarray, "n"]:
    """Return which images of a split a model classifies correctly."""
    images, labels = inputs.splits[name].images, inputs.splits[name].labels
    arrays = images if model.inputs[0].dtype == "uint8" else inputs.maps[name]
    return np.asarray(_predict(model, arrays).argmax(axis=1) == labels)


def _predict(model: keras.Model, arrays: np.ndarray) -> np.ndarray:
    """Return a model's outputs; unlike `model.predict`, this converts feature maps to float32 batch by batch."""
    starts = range(0, len(arrays), BATCH_SIZE)
    return np.concatenate([model.predict_on_batch(arrays[start : start + BATCH_SIZE]) for start in starts])
