"""Train a classifier based on the backbone on a subset of the images, with each seed."""

import argparse
from functools import partial
from pathlib import Path

from fashion.errors import run_command
from fashion.validation import read_yaml

COMPUTED = ("train_maps", "mirrored_maps", "validation_maps", "train_features", "validation_features")


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.train_transfer", description=__doc__)
    parser.add_argument("train", type=Path, help="training split (folder)")
    parser.add_argument("validation", type=Path, help="validation split (folder)")
    for name in COMPUTED:
        parser.add_argument(name, type=Path, help="written by the features stages (.npy)")
    parser.add_argument("trainable", type=Path, help="trainable part of the backbone (.keras)")
    parser.add_argument("trials", type=Path, help="folder to write, named METHOD-IMAGES, such as probe-100")
    args = parser.parse_args()
    study = read_yaml(Path(__file__).with_name("params.yaml"))

    import numpy as np

    from fashion.data import dataset
    from studies.transfer import trials
    from studies.transfer.methods import METHODS, Inputs

    train = dataset.load(args.train)
    computed = {name: np.load(getattr(args, name), mmap_mode="r") for name in COMPUTED}
    inputs = Inputs(train, dataset.load(args.validation), **computed, trainable=args.trainable, study=study)
    methods = {name: partial(method, inputs) for name, method in METHODS.items()}
    trials.run(args.trials, methods, train.labels, study)


if __name__ == "__main__":
    run_command(main)
