"""Measure which fraction of the machine's speed a training step reaches, and which operations take its time.

    python -m benchmarks.utilisation

Prints JSON. The rate of a training step counts the multiplications and additions of its convolutions and dense layers;
everything else (activations, normalisation, the optimiser, reading the data) only adds time. It is compared with the
rate of a large matrix product in the same precision. If the network has `FastConv2D`, the time of a step is also
compared with that of a step with Keras' `Conv2D`. All are measured in turns.
"""

import argparse
import collections
import functools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import run_command
from fashion.models import networks, training
from fashion.models.hard_examples import HardExampleSampler
from fashion.models.layers import FastConv2D
from fashion.params import TrainingParams, load_params

MATRIX = 2048  # rows and columns
STEPS = 30
REPEATS = 5


def main() -> None:
    """Measure all models in params.yaml."""
    argparse.ArgumentParser(prog="python -m benchmarks.utilisation", description=__doc__).parse_args()
    params = load_params()
    split = dataset.load(Path("data/train"))
    endless = {"epochs": 1000}  # so that the learning rate hardly changes
    print(
        json.dumps(
            {
                name: _utilisation(networks.load(name), networks.params_of(name, params, endless), split)
                for name in params.models
            }
        )
    )


def operations(model: keras.Model) -> int:
    """Return the floating-point operations of a training step per image, in convolutions and dense layers.

    For a trainable layer, the gradient of the kernel costs as much as the forward pass, and so does the gradient of the
    input, which is only needed if an earlier layer is trainable.
    """
    total, trainable_before = 0, False
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
            positions = math.prod(layer.output.shape[1:-1])
            forward = 2 * math.prod(layer.kernel.shape) * positions
            total += forward * (1 + layer.trainable + (layer.trainable and trainable_before))
            trainable_before |= layer.trainable
    return total


def _utilisation(network: ModuleType, params: TrainingParams, split: Split) -> dict[str, Any]:
    precision = training.dtype_policy(params.precision).removeprefix("mixed_")
    train, model = _trainer(network, params, split)
    trainers = {"step": train}
    if any(isinstance(layer, FastConv2D) for layer in model.layers):
        with mock.patch.object(FastConv2D, "call", keras.layers.Conv2D.call):
            trainers["keras_step"], _ = _trainer(network, params, split)
    times = collections.defaultdict(list)
    for _ in range(REPEATS):
        times["product"].append(_product_seconds(precision))
        for name, run in trainers.items():
            started = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - started) / STEPS)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    rate = operations(model) * params.batch_size / seconds["step"] / 1e9
    product = 2 * MATRIX**3 / seconds["product"] / 1e9
    results = {
        "precision": precision,
        "step_gflops": rate,
        "matrix_product_gflops": product,
        "share_of_matrix_product": rate / product,
        "profile": _profile(train),
    }
    if "keras_step" in seconds:
        results["step_relative_to_keras"] = seconds["step"] / seconds["keras_step"]
    return results


def _trainer(network: ModuleType, params: TrainingParams, split: Split) -> tuple[Callable[[], Any], keras.Model]:
    """Return a function that trains for `STEPS` steps, already traced and warmed up, and its model."""
    model = training.build_and_compile(network, params, split)
    data = training.training_batches(split, params, HardExampleSampler(params, split)).repeat()
    train = functools.partial(model.fit, data, steps_per_epoch=STEPS, shuffle=False, verbose=0)
    train()
    return train, model


def _product_seconds(precision: str) -> float:
    """Return the shortest of ten times of a product of two square matrices."""
    matrix = tf.cast(tf.random.normal((MATRIX, MATRIX)), precision)
    multiply = tf.function(lambda: tf.matmul(matrix, matrix))
    times = []
    for _ in range(10):
        started = time.perf_counter()
        multiply().numpy()
        times.append(time.perf_counter() - started)
    return min(times)


def _profile(train: Callable[[], Any]) -> dict[str, float]:
    """Return the fraction of the time that each kind of operation takes, for the twelve slowest, in that order."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            train()
        space = xplane_pb2.XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    spent: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                _, colon, kind = plane.event_metadata[event.metadata_id].name.partition(":")
                if colon and kind.isidentifier() and not kind.startswith("__"):  # NAME:KIND, of TensorFlow's executor
                    spent[kind.removeprefix("_MklNative").removeprefix("_Mkl").lstrip("_")] += event.duration_ps
    return {kind: time / spent.total() for kind, time in spent.most_common(12)}


if __name__ == "__main__":
    run_command(main)
