"""Train the network for photographs on so many images of each class, with each seed; record what it cost."""

import argparse
from functools import partial
from pathlib import Path

from fashion.errors import run_command
from fashion.params import read_yaml

COMPUTED = ("train_maps", "mirrored_maps", "validation_maps", "train_features", "validation_features")


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.transferred", description=__doc__)
    parser.add_argument("train", type=Path, help="training split (.npz)")
    parser.add_argument("validation", type=Path, help="validation split (.npz)")
    for name in COMPUTED:
        parser.add_argument(name, type=Path, help="as methods.Inputs describes it (.npy)")
    parser.add_argument("tail", type=Path, help="second part of the pretrained network (.keras)")
    parser.add_argument("trials", type=Path, help="folder to write, named METHOD-IMAGES: see methods.py, and how many")
    args = parser.parse_args()
    study = read_yaml(Path(__file__).with_name("params.yaml"))

    import numpy as np

    from fashion.data import dataset
    from studies.transfer import trials
    from studies.transfer.methods import METHODS, Inputs

    train = dataset.load(args.train)
    computed = {name: np.load(getattr(args, name), mmap_mode="r") for name in COMPUTED}
    inputs = Inputs(train, dataset.load(args.validation), **computed, tail=args.tail, study=study)
    methods = {name: partial(method, inputs) for name, method in METHODS.items()}
    trials.run(args.trials, methods, train.labels, study)


if __name__ == "__main__":
    run_command(main)
