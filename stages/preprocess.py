"""Validate the raw files, split off the validation images and audit the three splits."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import check_params_fit, load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.preprocess", description=__doc__)
    parser.add_argument("raw", type=Path, help="folder with the four IDX files")
    parser.add_argument("train", type=Path, help="training split to write (.npz)")
    parser.add_argument("validation", type=Path, help="validation split to write (.npz)")
    parser.add_argument("test", type=Path, help="test split to write (.npz)")
    parser.add_argument("audit", type=Path, help="data audit to write (.json)")
    args = parser.parse_args()
    params = load_params()

    from fashion.data import dataset, idx
    from fashion.data.audit import audit
    from fashion.data.splitting import stratified_split
    from fashion.evaluation import fonts
    from fashion.files import write_json

    classes = params.dataset.classes
    labelled = idx.read_split(args.raw / "train_images.idx", args.raw / "train_labels.idx", len(classes))
    test = idx.read_split(args.raw / "test_images.idx", args.raw / "test_labels.idx", len(classes))
    training, validation = stratified_split(labelled.labels, params.validation.images, params.validation.seed)
    fonts.check(classes)
    check_params_fit(labelled.image_shape, len(training))
    splits = labelled.take(training), labelled.take(validation), test

    dataset.save(splits[0], args.train)
    dataset.save(splits[1], args.validation)
    dataset.save(splits[2], args.test)
    write_json(args.audit, audit(*splits, classes, params.audit.near_duplicate_distance))


if __name__ == "__main__":
    run_command(main)
