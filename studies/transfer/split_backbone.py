"""Write the pretrained backbone in two parts: the frozen one, and the one that fine-tuning trains."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.validation import read_yaml


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.split_backbone", description=__doc__)
    parser.add_argument("split", type=Path, help="any split (folder), for the height and width of the images")
    parser.add_argument("frozen", type=Path, help="frozen part to write (.keras): pixels in, feature maps out")
    parser.add_argument("trainable", type=Path, help="trainable part to write (.keras): feature maps in, features out")
    args = parser.parse_args()
    study = read_yaml(Path(__file__).with_name("params.yaml"))["all"]

    from fashion.data import dataset
    from fashion.models import saving
    from studies.transfer.backbones import BACKBONES, split

    image_shape = dataset.load(args.split).image_shape
    frozen, trainable = split(BACKBONES[study["backbone"]], image_shape, study["image_size"], "imagenet")
    saving.save(frozen, args.frozen)
    saving.save(trainable, args.trainable)


if __name__ == "__main__":
    run_command(main)
