"""Training with a method on a subset of the images, once per seed."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from fashion.errors import UserError
from fashion.files import write_json
from fashion.models import saving

Method = Callable[[np.ndarray, int], tuple[keras.Model, float]]
"""Trains on the training images at some indices with a seed; returns the model and its validation accuracy."""


def run(trials: Path, methods: Mapping[str, Method], labels: np.ndarray, study: Mapping[str, Any]) -> None:
    """Train once per seed; write SEED.keras for each, and trials.json with validation accuracies and times in seconds.

    Args:
        trials: the folder to write, named METHOD-IMAGES; IMAGES is the number of images per class, or `all`.
        methods: by name.
        labels: of the training images.
        study: the study's params.

    Raises:
        UserError: there is no such method, or as for `subset`.
    """
    method, _, images = trials.name.partition("-")
    if method not in methods:
        raise UserError(f"there is no method {method}; choose one of {', '.join(methods)}")
    tf.config.experimental.enable_op_determinism()
    seeds = study["all"]["seeds"]
    results = []
    for seed in seeds[:1] if trials.name in study["all"]["single_seed"] else seeds:
        indices = subset(labels, images, seed)
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        started = time.perf_counter()
        model, accuracy = methods[method](indices, seed)
        seconds = time.perf_counter() - started
        saving.save(model, trials / f"{seed}.keras")
        results.append({"seed": seed, "val_accuracy": round(accuracy, 6), "seconds": round(seconds, 2)})
        print(f"{trials.name}, seed {seed}: validation accuracy {accuracy:.2%}, {seconds:.0f} s", flush=True)
    write_json(trials / "trials.json", results)


def subset(labels: np.ndarray, images: str, seed: int) -> Int64[np.ndarray, "m"]:
    """Return the indices of a random subset with the same number of images of each class.

    Args:
        labels: of all images.
        images: number of images per class, or `all`.
        seed: of the choice; every method gets the same images.

    Raises:
        UserError: `images` is not a number, or a class has fewer images.
    """
    if images == "all":
        return np.arange(len(labels))
    most = int(np.bincount(labels).min())
    count = int(images) if images.isdecimal() else 0
    if not 1 <= count <= most:
        raise UserError(f"{images} is not a number of images per class; use 1 to {most}, or all")
    generator = np.random.default_rng(seed)
    chosen = [generator.choice(np.flatnonzero(labels == label), count, replace=False) for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def accuracy(model: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of inputs that a model classifies correctly."""
    return float((model.predict(inputs, batch_size=500, verbose=0).argmax(axis=1) == labels).mean())
