"""Train by one of the compared methods on so many images of each class, with each seed; record what it cost.

Written to a folder: SEED.keras for each seed, and trials.json with the accuracy on the validation images and the
seconds of each training.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from fashion.errors import UserError, run_command
from fashion.params import load_params, read_yaml


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.train", description=__doc__)
    parser.add_argument("method", help="one of those in methods.py")
    parser.add_argument("images", help="of each class, or `all`")
    parser.add_argument("train", type=Path, help="training split (.npz)")
    parser.add_argument("validation", type=Path, help="validation split (.npz)")
    parser.add_argument("train_maps", type=Path, help="maps of the training images (.npy)")
    parser.add_argument("validation_maps", type=Path, help="maps of the validation images (.npy)")
    parser.add_argument("train_features", type=Path, help="features of the training images (.npy)")
    parser.add_argument("validation_features", type=Path, help="features of the validation images (.npy)")
    parser.add_argument("tail", type=Path, help="second part of the pretrained network (.keras)")
    parser.add_argument("trials", type=Path, help="folder to write to")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of those in the study's params.yaml")
    args = parser.parse_args()
    params = load_params()
    study = read_yaml(Path(__file__).with_name("params.yaml"))

    from fashion.data import dataset
    from fashion.files import write_json
    from fashion.models import archive
    from studies.transfer.methods import METHODS, Inputs

    if args.method not in METHODS:
        raise UserError(f"no method {args.method}; there are {', '.join(METHODS)}")
    train, validation = dataset.load(args.train), dataset.load(args.validation)
    inputs = Inputs(
        train,
        validation,
        np.load(args.train_maps, mmap_mode="r"),
        np.load(args.validation_maps, mmap_mode="r"),
        np.load(args.train_features, mmap_mode="r"),
        np.load(args.validation_features, mmap_mode="r"),
        args.tail,
        {"cnn": params.cnn, "dnn": params.dnn},
        study,
    )
    trials = []
    for seed in args.seeds or study["all"]["seeds"]:
        taken = take(train.labels, args.images, seed)
        started = time.perf_counter()
        model, accuracy = METHODS[args.method](inputs, taken, seed)
        seconds = time.perf_counter() - started
        archive.save(model, args.trials / f"{seed}.keras")
        trials.append({"seed": seed, "val_accuracy": round(accuracy, 6), "seconds": round(seconds, 2)})
        what = f"{args.method}, {args.images} images of each class, seed {seed}"
        print(f"{what}: {accuracy:.2%} of the validation images, {seconds:.0f} s", flush=True)
    write_json(args.trials / "trials.json", trials)


def take(labels: np.ndarray, images: str, seed: int) -> np.ndarray:
    """Return the indices of so many images of each class at random, or of all; the same for every method.

    Raises:
        UserError: it is no number, or a class has not so many.
    """
    if images == "all":
        return np.arange(len(labels))
    fewest = int(np.bincount(labels).min())
    count = int(images) if images.isdecimal() else 0
    if not 1 <= count <= fewest:
        raise UserError(f"{images} images of each class are asked for; write a number from 1 to {fewest}, or all")
    generator = np.random.default_rng(seed)
    chosen = [generator.choice(np.flatnonzero(labels == label), count, replace=False) for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


if __name__ == "__main__":
    run_command(main)
