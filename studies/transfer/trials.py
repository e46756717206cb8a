"""Training by one method on so many images of each class, with each seed, and recording what it cost."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fashion.errors import UserError
from fashion.files import write_json
from fashion.models import saving

Method = Callable[[np.ndarray, int], tuple[keras.Model, float]]
"""Trains on the training images of some indices with a seed; returns the model and its accuracy on validation."""


def run(trials: Path, methods: Mapping[str, Method], labels: np.ndarray, study: Mapping[str, Any]) -> None:
    """Train once per seed, and write a folder: SEED.keras for each, and trials.json.

    trials.json has the accuracy on the validation images and the seconds of each training, its start included.

    Args:
        trials: the folder, named METHOD-IMAGES, where IMAGES is how many of each class, or `all`.
        methods: by name.
        labels: of the training images.
        study: the study's params.

    Raises:
        UserError: there is no such method, or a class has not so many images.
    """
    method, _, images = trials.name.partition("-")
    if method not in methods:
        raise UserError(f"no method {method}; there are {', '.join(methods)}")
    tf.config.experimental.enable_op_determinism()
    seeds = study["all"]["seeds"]
    made = []
    for seed in seeds[:1] if trials.name in study["all"]["once"] else seeds:
        taken = take(labels, images, seed)
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        started = time.perf_counter()
        model, accuracy = methods[method](taken, seed)
        seconds = time.perf_counter() - started
        saving.save(model, trials / f"{seed}.keras")
        made.append({"seed": seed, "val_accuracy": round(accuracy, 6), "seconds": round(seconds, 2)})
        print(f"{trials.name}, seed {seed}: {accuracy:.2%} of the validation images, {seconds:.0f} s", flush=True)
    write_json(trials / "trials.json", made)


def take(labels: np.ndarray, images: str, seed: int) -> np.ndarray:
    """Return the indices of so many images of each class at random, or of all; the same for every method.

    Raises:
        UserError: it is no number, or a class has not so many.
    """
    if images == "all":
        return np.arange(len(labels))
    fewest = int(np.bincount(labels).min())
    count = int(images) if images.isdecimal() else 0
    if not 1 <= count <= fewest:
        raise UserError(f"{images} images of each class are asked for; write a number from 1 to {fewest}, or all")
    generator = np.random.default_rng(seed)
    chosen = [generator.choice(np.flatnonzero(labels == label), count, replace=False) for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def accuracy(model: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of inputs that a model gives their labels."""
    return float((model.predict(inputs, batch_size=500, verbose=0).argmax(axis=1) == labels).mean())
