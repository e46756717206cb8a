"""The methods that train a classifier based on the backbone.

Their models differ in their inputs: features for the linear probe, feature maps for fine-tuning, raw pixels for the
network with random weights.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fashion.data.dataset import Images, Split
from fashion.models import saving
from fashion.models.progress import Progress
from studies.transfer.backbones import BACKBONES, split
from studies.transfer.trials import accuracy

MOMENTUM = 0.9  # of batch normalisation, so that its statistics adapt within a few hundred steps

Indices = Int64[np.ndarray, "m"]
Mirrored = Bool[np.ndarray, "m"]


@dataclass(frozen=True)
class Inputs:
    """What the methods train with.

    Attributes:
        train: the training images.
        validation: the validation images.
        train_maps: feature maps of the training images, (n, height, width, filters).
        mirrored_maps: feature maps of the mirrored training images.
        validation_maps: feature maps of the validation images.
        train_features: features of the training images, (n, features).
        validation_features: features of the validation images.
        trainable: path of the trainable part of the backbone.
        study: the study's params.
    """

    train: Split
    validation: Split
    train_maps: np.ndarray
    mirrored_maps: np.ndarray
    validation_maps: np.ndarray
    train_features: np.ndarray
    validation_features: np.ndarray
    trainable: Path
    study: Mapping[str, Any]

    def maps(self, indices: Indices, mirrored: Mirrored) -> Float32[np.ndarray, "m height width filters"]:
        """Return the feature maps of training images, each mirrored or not."""
        chosen = ((self.mirrored_maps if m else self.train_maps)[i] for i, m in zip(indices, mirrored, strict=True))
        return np.stack(list(chosen)).astype(np.float32)

    def images(self, indices: Indices, mirrored: Mirrored) -> Images:
        """Return training images, each mirrored or not."""
        images = self.train.images[indices]
        return np.asarray(np.where(mirrored[:, None, None, None], images[:, :, ::-1], images))


def probe(inputs: Inputs, indices: Indices, _seed: int) -> tuple[keras.Model, float]:
    """Fit a logistic regression to the features, with the C of the highest validation accuracy."""
    scaler = StandardScaler()
    train = scaler.fit_transform(inputs.train_features[indices].astype(np.float32))
    validation = scaler.transform(inputs.validation_features.astype(np.float32))
    regression, fits = LogisticRegression(max_iter=200, warm_start=True), []
    for strength in sorted(inputs.study["probe"]["C"]):
        regression.set_params(C=strength).fit(train, inputs.train.labels[indices])
        score = regression.score(validation, inputs.validation.labels)
        fits.append((score, regression.coef_.T.copy(), regression.intercept_.copy()))
    best, kernel, bias = max(fits, key=lambda fit: fit[0])
    layer = keras.layers.Dense(inputs.train.num_classes, activation="softmax", name="output")
    model = keras.Sequential([keras.Input(train.shape[1:]), layer], name="probe")
    kernel /= scaler.scale_[:, None]  # the layer includes the scaling
    layer.set_weights([kernel, bias - scaler.mean_ @ kernel])
    return model, best


def finetune(inputs: Inputs, indices: Indices, seed: int) -> tuple[keras.Model, float]:
    """Fine-tune the trainable part, except for its depthwise kernels.

    These are 4 % of its weights, and their gradients are slow to compute on a CPU.
    """
    trainable = saving.load(inputs.trainable)
    for layer in _layers(trainable):
        layer.trainable = not isinstance(layer, keras.layers.DepthwiseConv2D)
    model = _fit(trainable, "finetuned", inputs.maps, inputs, indices, seed)
    return model, accuracy(model, inputs.validation_maps.astype(np.float32), inputs.validation.labels)


def train_random(inputs: Inputs, indices: Indices, seed: int) -> tuple[keras.Model, float]:
    """Train the whole network from random weights."""
    study = inputs.study
    backbone, size = BACKBONES[study["all"]["backbone"]], study["random"]["image_size"]
    frozen, trainable = split(backbone, inputs.train.image_shape, size, None)
    network = keras.Model(frozen.input, trainable(frozen.output))
    model = _fit(network, "random", inputs.images, inputs, indices, seed)
    return model, accuracy(model, inputs.validation.images, inputs.validation.labels)


METHODS: dict[str, Callable[[Inputs, Indices, int], tuple[keras.Model, float]]] = {
    "probe": probe,
    "finetuned": finetune,
    "random": train_random,
}


def _fit(
    network: keras.Model,
    name: str,
    load: Callable[[Indices, Mirrored], np.ndarray],
    inputs: Inputs,
    indices: Indices,
    seed: int,
) -> keras.Model:
    """Add a linear classifier to a network and train both.

    Args:
        network: extracts features.
        name: of the model, and of the study's section with its settings.
        load: returns the network's inputs for training images, each mirrored or not.
        inputs: what to train with.
        indices: the training images.
        seed: of their order, and of which are mirrored.
    """
    settings = inputs.study[name]
    size = settings["batch_size"]
    steps = max(settings["min_steps"], settings["epochs"] * -(-len(indices) // size))
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(indices) for _ in range(-(-steps * size // len(indices)))])
    mirrored = generator.random(len(order)) < 0.5
    one_hot = np.eye(inputs.train.num_classes, dtype=np.float32)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, steps * size, size):
            batch = slice(start, start + size)
            yield load(order[batch], mirrored[batch]), one_hot[inputs.train.labels[order[batch]]]

    for layer in _layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    classifier = keras.layers.Dense(inputs.train.num_classes, activation="softmax", dtype="float32", name="output")
    model = keras.Model(network.input, classifier(network.output), name=name)
    warmup_steps, peak = int(settings["warmup_fraction"] * steps), settings["learning_rate"]
    schedule = keras.optimizers.schedules.CosineDecay(
        peak / 10, steps - warmup_steps, warmup_target=peak, warmup_steps=warmup_steps
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=settings["weight_decay"]),
        keras.losses.CategoricalCrossentropy(label_smoothing=settings["label_smoothing"]),
        metrics=["accuracy"],
    )
    signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in (model.input, model.output))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    data = data.apply(tf.data.experimental.assert_cardinality(steps))
    options = tf.data.Options()
    options.autotune.enabled = False  # it has nothing to tune, and delays the end of the training
    progress = Progress(steps * size, size, epochs=1)  # to Keras, the whole training is one epoch
    model.fit(data.with_options(options), shuffle=False, callbacks=[progress], verbose=0)
    return keras.Model(model.input, model.output, name=name)  # without the optimiser, twice as large as the weights


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model, nested ones included."""
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else (layer,)
