"""Time the predictions of exported models, from a fresh process and in bulk, and print the seconds as JSON.

python -m benchmarks.serving
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.dvc import seconds
from fashion.data import dataset
from fashion.dvc import Lock
from fashion.errors import run_command
from fashion.serving.classifier import exported_models

REPEATS = 7
WITH_KERAS = """
import sys
from pathlib import Path
from fashion.data import dataset
from fashion.models import saving
image = dataset.load(Path("data/test")).images[:1]
print(saving.load(Path(sys.argv[1])).predict(image, verbose=0).argmax())
"""


def main() -> None:
    """Time `fashion predict` and Keras alternately on one image, then `fashion predict` on the whole test set."""
    argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__).parse_args()
    root = Path()
    models = exported_models(root, Lock.read(root))
    commands = {
        "fashion predict": ["fashion", "predict", "--test-index", "0"],
        "Keras": [sys.executable, "-c", WITH_KERAS, f"models/{models[-1]}/model.keras"],
    }
    first: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS + 1):
        for name, command in commands.items():
            first[name].append(seconds(command))
    images = dataset.load(Path("data/test")).images
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{index}.png" for index in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
        bulk = {
            model: [seconds(["fashion", "predict", "--json", "--model", model, *paths]) for _ in range(3)]
            for model in models
        }
    print(
        json.dumps(
            {
                "first_prediction_seconds": {name: times[1:] for name, times in first.items()},  # not the first
                "images": len(images),
                "bulk_seconds": bulk,
            }
        )
    )


if __name__ == "__main__":
    run_command(main)
