"""Write a pretrained network in two parts: the one that fine-tuning leaves as it is, and the one that it trains."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import read_yaml


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.weights", description=__doc__)
    parser.add_argument("images", type=Path, help="a split (.npz), for the height and width of its images")
    parser.add_argument("front", type=Path, help="first part to write (.keras): pixels in, maps out")
    parser.add_argument("tail", type=Path, help="second part to write (.keras): maps in, features out")
    args = parser.parse_args()
    study = read_yaml(Path(__file__).with_name("params.yaml"))["all"]

    from fashion.data import dataset
    from fashion.models import saving
    from studies.transfer import backbones

    shape = dataset.load(args.images).image_shape
    parts = backbones.split(backbones.BACKBONES[study["backbone"]], shape, study["size"], "imagenet")
    saving.save(parts.front, args.front)
    saving.save(parts.tail, args.tail)


if __name__ == "__main__":
    run_command(main)
