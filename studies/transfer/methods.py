"""The compared ways to a classifier by a network for photographs: from what it learned of them, and from nothing.

What their models take differs: the probe features, the fine-tuned part maps (both as the features stages write them),
the network from random weights raw pixels.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fashion.data.dataset import Split
from fashion.models import saving
from fashion.models.progress import Progress
from studies.transfer.backbones import BACKBONES, split
from studies.transfer.trials import accuracy

MOMENTUM = 0.9  # of the statistics of batches: they have a few hundred steps to forget the values that they begin with


@dataclass(frozen=True)
class Inputs:
    """All that a method may train with.

    Attributes:
        train: the training images.
        validation: the validation images.
        train_maps: of the training images, (n, height, width, filters).
        mirrored_maps: of the training images, mirrored.
        validation_maps: of the validation images.
        train_features: of the training images, (n, features).
        validation_features: of the validation images.
        tail: path of the pretrained network's second part.
        study: the study's params.
    """

    train: Split
    validation: Split
    train_maps: np.ndarray
    mirrored_maps: np.ndarray
    validation_maps: np.ndarray
    train_features: np.ndarray
    validation_features: np.ndarray
    tail: Path
    study: Mapping[str, Any]


def probe(inputs: Inputs, taken: np.ndarray, _seed: int) -> tuple[keras.Model, float]:
    """Fit a linear classifier of the pretrained features, by logistic regression with the best of a few strengths."""
    scaler = StandardScaler()
    train = scaler.fit_transform(inputs.train_features[taken].astype(np.float32))
    validation = scaler.transform(inputs.validation_features.astype(np.float32))
    regression, fits = LogisticRegression(max_iter=200, warm_start=True), []
    for strength in sorted(inputs.study["probe"]["strengths"]):
        regression.set_params(C=strength).fit(train, inputs.train.labels[taken])
        score = regression.score(validation, inputs.validation.labels)
        fits.append((score, regression.coef_.T.copy(), regression.intercept_.copy()))
    best, kernel, bias = max(fits, key=lambda fit: fit[0])
    layer = keras.layers.Dense(inputs.train.num_classes, activation="softmax", name="output")
    model = keras.Sequential([keras.Input(train.shape[1:]), layer], name="probe")
    kernel /= scaler.scale_[:, None]  # with what the scaler does folded in
    layer.set_weights([kernel, bias - scaler.mean_ @ kernel])
    return model, best


def finetuned(inputs: Inputs, taken: np.ndarray, seed: int) -> tuple[keras.Model, float]:
    """Train the last blocks on from what they learned; their normalisation goes by the new images.

    Their depthwise kernels stay as they are: a twenty-fifth of the weights, whose gradients are slow on a processor.
    """
    tail = saving.load(inputs.tail)
    for layer in _layers(tail):
        layer.trainable = not isinstance(layer, keras.layers.DepthwiseConv2D)

    def load(indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        maps = [
            (inputs.mirrored_maps if mirror else inputs.train_maps)[i]
            for i, mirror in zip(indices, mirrored, strict=True)
        ]
        return np.asarray(maps, np.float32)

    model = _fit(tail, "finetuned", load, inputs, taken, seed)
    return model, accuracy(model, inputs.validation_maps.astype(np.float32), inputs.validation.labels)


def random(inputs: Inputs, taken: np.ndarray, seed: int) -> tuple[keras.Model, float]:
    """Train the same network, whole, from random weights."""
    study = inputs.study
    parts = split(BACKBONES[study["all"]["backbone"]], inputs.train.image_shape, study["random"]["size"], None)
    network = keras.Model(parts.front.input, parts.tail(parts.front.output))

    def load(indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        images = inputs.train.images[indices]
        return np.asarray(np.where(mirrored[:, None, None], images[:, :, ::-1], images))

    model = _fit(network, "random", load, inputs, taken, seed)
    return model, accuracy(model, inputs.validation.images, inputs.validation.labels)


METHODS: dict[str, Callable[[Inputs, np.ndarray, int], tuple[keras.Model, float]]] = {
    "probe": probe,
    "finetuned": finetuned,
    "random": random,
}


def _fit(
    network: keras.Model,
    name: str,
    load: Callable[[np.ndarray, np.ndarray], np.ndarray],
    inputs: Inputs,
    taken: np.ndarray,
    seed: int,
) -> keras.Model:
    """Put a linear classifier after a network and train both, by the settings that the study has under `name`.

    Args:
        network: gives features.
        name: of the settings, and of the model.
        load: returns images by their indices, each mirrored or not.
        inputs: what to train with.
        taken: indices of the training images.
        seed: of their order, and of which are mirrored.
    """
    settings = inputs.study[name]
    size = settings["batch_size"]
    steps = max(settings["least_steps"], settings["epochs"] * -(-len(taken) // size))
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(taken) for _ in range(-(-steps * size // len(taken)))])
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
    warmup, peak = int(settings["warmup"] * steps), settings["learning_rate"]
    schedule = keras.optimizers.schedules.CosineDecay(
        peak / 10, steps - warmup, warmup_target=peak, warmup_steps=warmup
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
    options.autotune.enabled = False  # there is nothing to tune, and it would be waited for at the end
    progress = Progress(steps * size, size, epochs=1)  # to Keras, the whole training is one epoch
    model.fit(data.with_options(options), shuffle=False, callbacks=[progress], verbose=0)
    return keras.Model(model.input, model.output, name=name)  # without the optimiser, twice as large as the weights


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model and of the models in it."""
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else (layer,)
