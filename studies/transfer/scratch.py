"""Train one of the project's own models on so many images of each class, with each seed; record what it cost."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import Training, change, load_params, read_yaml

CHECKED = 500  # validation images that the models are checked with after each epoch


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.scratch", description=__doc__)
    parser.add_argument("train", type=Path, help="training split (.npz)")
    parser.add_argument("validation", type=Path, help="validation split (.npz)")
    parser.add_argument("trials", type=Path, help="folder to write, named MODEL-IMAGES: cnn or dnn, and how many")
    args = parser.parse_args()
    params = load_params()
    study = read_yaml(Path(__file__).with_name("params.yaml"))

    from functools import partial
    from typing import Any

    import keras
    import numpy as np

    from fashion.data import dataset
    from fashion.models import cnn, dnn, training
    from studies.transfer import trials

    train, validation = dataset.load(args.train), dataset.load(args.validation)
    checked = validation.take(np.arange(min(CHECKED, len(validation.labels))))

    def fit(build: Any, settings: Training, taken: np.ndarray, seed: int) -> tuple[keras.Model, float]:
        """Train; few images are repeated until an epoch has enough."""
        settings = change(settings, study["scratch"]["changes"] | {"seed": seed})
        repeated = np.tile(taken, -(-study["scratch"]["least_images"] // len(taken)))
        model, _ = training.train(build, settings, train.take(repeated), checked)
        return model, trials.accuracy(model, validation.images, validation.labels)

    networks = {"cnn": partial(fit, cnn.build, params.cnn), "dnn": partial(fit, dnn.build, params.dnn)}
    trials.run(args.trials, networks, train.labels, study)


if __name__ == "__main__":
    run_command(main)
