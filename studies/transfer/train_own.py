"""Train one of this project's networks on a subset of the images, with each seed."""

import argparse
from pathlib import Path
from types import ModuleType

from fashion.errors import run_command
from fashion.params import load_params
from fashion.validation import merged, read_yaml

MAX_VALIDATION_IMAGES = 500  # after each epoch; the accuracy of the trained model is that on all


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.train_own", description=__doc__)
    parser.add_argument("train", type=Path, help="training split (folder)")
    parser.add_argument("validation", type=Path, help="validation split (folder)")
    parser.add_argument("trials", type=Path, help="folder to write, named MODEL-IMAGES, such as cnn-100")
    args = parser.parse_args()
    params = load_params()
    study = read_yaml(Path(__file__).with_name("params.yaml"))

    from functools import partial

    import keras
    import numpy as np

    from fashion.data import dataset
    from fashion.models import cnn, dnn, networks, training
    from studies.transfer import trials

    train, validation = dataset.load(args.train), dataset.load(args.validation)
    monitored = validation.take(np.arange(min(MAX_VALIDATION_IMAGES, len(validation.labels))))

    def fit(name: str, network: ModuleType, indices: np.ndarray, seed: int) -> tuple[keras.Model, float]:
        settings = networks.params_of(name, params, merged(study["own"]["changes"], {"seed": seed}))
        repeated = np.tile(indices, -(-study["own"]["min_images"] // len(indices)))
        model, _ = training.train(network, settings, train.take(repeated), monitored)
        return model, trials.accuracy(model, validation.images, validation.labels)

    methods = {"cnn": partial(fit, "cnn", cnn), "dnn": partial(fit, "dnn", dnn)}
    trials.run(args.trials, methods, train.labels, study)


if __name__ == "__main__":
    run_command(main)
