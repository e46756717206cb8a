"""Time answers of exported models, from a fresh process and in bulk, and print them as JSON.

python -m benchmarks.serving
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from fashion.data import dataset
from fashion.errors import run_command

REPEATS = 7
MODELS = ("dnn", "cnn")
WITH_KERAS = """
from pathlib import Path
from fashion.data import dataset
from fashion.models import saving
image = dataset.load(Path("data/test.npz")).images[:1]
print(saving.load(Path("models/cnn/model.keras")).predict(image, verbose=0).argmax())
"""


def main() -> None:
    """Time in turns the first answer of `fashion predict` and of Keras, then thousands of pictures in one call."""
    argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__).parse_args()
    commands = {
        "fashion predict": ["fashion", "predict", "--test-index", "0"],
        "Keras": [sys.executable, "-c", WITH_KERAS],
    }
    starts: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS + 1):
        for name, command in commands.items():
            starts[name].append(_seconds(command))
    images = dataset.load(Path("data/test.npz")).images
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{index}.png" for index in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        bulk = {
            model: [_seconds(["fashion", "predict", "--json", "--model", model, *paths]) for _ in range(3)]
            for model in MODELS
        }
    print(
        json.dumps(
            {
                "first_answer_seconds": {name: times[1:] for name, times in starts.items()},  # not from a cold disk
                "pictures": len(images),
                "bulk_seconds": bulk,
            }
        )
    )


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    run_command(main)
