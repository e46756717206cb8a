"""Train the CNN for an epoch on the training images repeated TIMES times; print time and peak memory as JSON.

    python -m benchmarks.scaling TIMES

There is no hard-example mining: every image is used.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from fashion.data import dataset
from fashion.errors import run_command
from fashion.models import input_pipeline, networks, training
from fashion.params import load_params

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def main() -> None:
    """Run the epoch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("times", type=int, help="number of copies of each image")
    times = parser.parse_args().times
    params = networks.params_of("cnn", load_params())
    split = dataset.load(Path("data/train"))
    split = split.take(np.tile(np.arange(len(split.images)), times))
    model = training.build_and_compile(networks.load("cnn"), params, split)
    batches = input_pipeline.batches(split, params, training=True)
    model.fit(batches.take(training.STEPS_PER_EXECUTION), verbose=0)  # builds the graph
    started = time.perf_counter()
    model.fit(batches, epochs=1, verbose=0)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    print(
        json.dumps(
            {
                "images": len(split.images),
                "seconds_per_image": seconds / len(split.images),
                "data_bytes": split.images.nbytes,
                "peak_bytes": peak,
            }
        )
    )


if __name__ == "__main__":
    run_command(main)
