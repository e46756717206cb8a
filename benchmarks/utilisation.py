"""How much of the machine a training step uses, and where the rest of its time goes.

    python -m benchmarks.utilisation

Prints JSON. The rate of a training step counts the multiplications and additions that its convolutions and dense
layers need; all else (activations, normalisation, the optimiser, reading data) only takes time. It is compared with
the rate of a large matrix product in the same precision, timed in turns with it.
"""

import collections
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from fashion.data import dataset
from fashion.errors import run_command
from fashion.models import cnn, dnn, training
from fashion.params import Training, change, load_params

MATRIX = 2048  # rows and columns
STEPS = 30
REPEATS = 5


def main() -> None:
    """Measure both models."""
    params = load_params()
    split = dataset.load(Path("data/train.npz"))
    networks = {"dnn": (dnn.build, params.dnn), "cnn": (cnn.build, params.cnn)}
    print(json.dumps({name: _utilisation(build, settings, split) for name, (build, settings) in networks.items()}))


def operations(model: keras.Model) -> int:
    """Return the floating-point operations of a training step per image, in convolutions and dense layers.

    A layer that is learned costs its forward pass again for the gradient of its kernel, and once more for the gradient
    of its input unless nothing before it is learned.
    """
    total, learned_before = 0, False
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
            positions = math.prod(layer.output.shape[1:-1])
            forward = 2 * math.prod(layer.kernel.shape) * positions
            total += forward * (1 + layer.trainable + (layer.trainable and learned_before))
            learned_before |= layer.trainable
    return total


def _utilisation(build: Any, params: Training, split: Any) -> dict[str, Any]:
    params = change(params, {"epochs": 1000})  # far from the end of the schedule
    model = training.build_and_compile(build, params, split)
    batches = training.batches(split, params, training=True).repeat()
    model.fit(batches, steps_per_epoch=STEPS, verbose=0)  # traces and warms up
    precision = training.dtype_policy(params.precision).removeprefix("mixed_")
    step = operations(model) * params.batch_size
    product, steps = [], []
    for _ in range(REPEATS):
        product.append(2 * MATRIX**3 / _product_seconds(precision))
        started = time.perf_counter()
        model.fit(batches, steps_per_epoch=STEPS, verbose=0)
        steps.append(step * STEPS / (time.perf_counter() - started))
    return {
        "precision": precision,
        "step_gflops": sorted(steps)[REPEATS // 2] / 1e9,
        "matrix_product_gflops": sorted(product)[REPEATS // 2] / 1e9,
        "share_of_matrix_product": sorted(steps)[REPEATS // 2] / sorted(product)[REPEATS // 2],
        "profile": _profile(model, batches),
    }


def _product_seconds(precision: str) -> float:
    """Return the time of a product of two square matrices, the best of ten."""
    matrix = tf.cast(tf.random.normal((MATRIX, MATRIX)), precision)
    multiply = tf.function(lambda: tf.matmul(matrix, matrix))
    times = []
    for _ in range(10):
        started = time.perf_counter()
        multiply().numpy()
        times.append(time.perf_counter() - started)
    return min(times)


def _profile(model: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
    """Return each kind of operation's share of the time of all operations, the largest first."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            model.fit(batches, steps_per_epoch=STEPS, verbose=0)
        space = xplane_pb2.XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    spent: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                _, colon, kind = plane.event_metadata[event.metadata_id].name.partition(":")
                if colon and kind.isidentifier() and not kind.startswith("__"):  # NAME:KIND, as TensorFlow's executor
                    spent[kind.removeprefix("_MklNative").removeprefix("_Mkl").lstrip("_")] += event.duration_ps
    return {kind: time / spent.total() for kind, time in spent.most_common(12)}


if __name__ == "__main__":
    run_command(main)
