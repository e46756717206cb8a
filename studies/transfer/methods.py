"""The compared ways to a classifier: from what a network learned of photographs, and from nothing.

What their models take differs: the probe features, the fine-tuned part maps (both as the features stage writes them),
the others raw pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fashion.data.dataset import Split
from fashion.models import archive, cnn, dnn, training
from fashion.models.progress import Progress
from fashion.params import Training, change
from studies.transfer.backbones import BACKBONES, split

MOMENTUM = 0.9  # of random weights' statistics: they have a few hundred steps to forget the values that they begin with
CHECKED = 500  # validation images that the project's models are checked with after each epoch


@dataclass(frozen=True)
class Inputs:
    """All that a method may train with.

    Attributes:
        train: the training images.
        validation: the validation images.
        train_maps: of the training images, (2, n, height, width, filters): as they are, and mirrored.
        validation_maps: likewise of the validation images.
        train_features: of the training images, (n, features).
        validation_features: likewise of the validation images.
        tail: path of the pretrained network's second part.
        models: settings of the project's own models, by name.
        study: the study's params.
    """

    train: Split
    validation: Split
    train_maps: np.ndarray
    validation_maps: np.ndarray
    train_features: np.ndarray
    validation_features: np.ndarray
    tail: Path
    models: Mapping[str, Training]
    study: Mapping[str, Any]


Method = Callable[[Inputs, np.ndarray, int], tuple[keras.Model, float]]
"""Trains on the images of some indices with a seed; returns the model and its accuracy on the validation images."""


def probe(inputs: Inputs, taken: np.ndarray, seed: int) -> tuple[keras.Model, float]:
    """Fit a linear classifier of the pretrained features, by logistic regression with the best of a few strengths."""
    scaler = StandardScaler()
    train = scaler.fit_transform(inputs.train_features[taken].astype(np.float32))
    validation = scaler.transform(inputs.validation_features.astype(np.float32))
    fits = [
        LogisticRegression(C=strength, max_iter=200, random_state=seed).fit(train, inputs.train.labels[taken])
        for strength in inputs.study["probe"]["strengths"]
    ]
    accuracies = [fit.score(validation, inputs.validation.labels) for fit in fits]
    best = fits[int(np.argmax(accuracies))]
    layer = keras.layers.Dense(inputs.train.class_count, activation="softmax")
    model = keras.Sequential([keras.Input(train.shape[1:]), layer], name="probe")
    kernel = best.coef_.T / scaler.scale_[:, None]  # with what the scaler does folded in
    layer.set_weights([kernel, best.intercept_ - scaler.mean_ @ kernel])
    return model, float(max(accuracies))


def finetuned(inputs: Inputs, taken: np.ndarray, seed: int) -> tuple[keras.Model, float]:
    """Train the last blocks on from what they learned; their normalisation goes by the new images."""
    keras.utils.set_random_seed(seed)
    tail = archive.load(inputs.tail)

    def load(indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        return np.asarray(inputs.train_maps[mirrored.astype(int), indices], np.float32)

    model = _fit(tail, "finetuned", load, inputs, taken, seed)
    return model, _accuracy(model, inputs.validation_maps[0].astype(np.float32), inputs.validation.labels)


def random(inputs: Inputs, taken: np.ndarray, seed: int) -> tuple[keras.Model, float]:
    """Train the same network, whole, from random weights."""
    keras.utils.set_random_seed(seed)
    common = inputs.study["all"]
    parts = split(BACKBONES[common["backbone"]], inputs.train.image_shape, common["size"], None)
    for layer in (*parts.front.get_layer("frozen").layers, *parts.tail.layers):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    network = keras.Model(parts.front.input, parts.tail(parts.front.output))

    def load(indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        images = inputs.train.images[indices]
        return np.asarray(np.where(mirrored[:, None, None], images[:, :, ::-1], images))

    model = _fit(network, "random", load, inputs, taken, seed)
    return model, _accuracy(model, inputs.validation.images, inputs.validation.labels)


def scratch(build: Callable[[Any, Split], keras.Model], name: str) -> Method:
    """Return how to train one of the project's own models; few images are repeated until an epoch has enough."""

    def train(inputs: Inputs, taken: np.ndarray, seed: int) -> tuple[keras.Model, float]:
        settings = change(inputs.models[name], inputs.study["scratch"]["changes"] | {"seed": seed})
        repeated = np.tile(taken, -(-inputs.study["scratch"]["least_images"] // len(taken)))
        checked = inputs.validation.take(np.arange(min(CHECKED, len(inputs.validation.labels))))
        model, _ = training.train(build, settings, inputs.train.take(repeated), checked)
        return model, _accuracy(model, inputs.validation.images, inputs.validation.labels)

    return train


METHODS: dict[str, Method] = {
    "probe": probe,
    "finetuned": finetuned,
    "random": random,
    "cnn": scratch(cnn.build, "cnn"),
    "dnn": scratch(dnn.build, "dnn"),
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
    of_epochs = settings["epochs"] * -(-len(taken) // size)
    steps, few = max(settings["least_steps"], of_epochs), of_epochs < settings["least_steps"]
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(taken) for _ in range(-(-steps * size // len(taken)))])
    mirrored = generator.random(len(order)) < 0.5
    one_hot = np.eye(inputs.train.class_count, dtype=np.float32)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        """The batches of the whole training: to Keras, it is one epoch."""

        def __len__(self) -> int:
            return int(steps)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            batch = slice(index * size, (index + 1) * size)
            return load(order[batch], mirrored[batch]), one_hot[inputs.train.labels[order[batch]]]

    outputs = keras.layers.Dense(inputs.train.class_count, activation="softmax", dtype="float32")(network.output)
    model = keras.Model(network.input, outputs, name=name)
    warmup, peak = round(settings["warmup"] * steps), settings["learning_rate_of_few" if few else "learning_rate"]
    schedule = keras.optimizers.schedules.CosineDecay(
        peak / 10, steps - warmup, warmup_target=peak, warmup_steps=warmup
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=settings["weight_decay"]),
        keras.losses.CategoricalCrossentropy(label_smoothing=settings["label_smoothing"]),
        metrics=["accuracy"],
    )
    model.fit(Batches(), shuffle=False, callbacks=[Progress(steps * size, size, 1)], verbose=0)
    return keras.Model(model.input, model.output, name=name)  # without the optimiser, twice as large as the weights


def _accuracy(model: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> float:
    return float((model.predict(inputs, batch_size=500, verbose=0).argmax(axis=1) == labels).mean())
