"""Validate the raw files, split off the validation images and audit the three splits."""

import argparse
from pathlib import Path

from fashion.errors import UserError, run_command
from fashion.params import DatasetParams, check_params_fit, load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.preprocess", description=__doc__)
    parser.add_argument("raw", type=Path, help="folder that the fetch stage wrote")
    parser.add_argument("train", type=Path, help="training split to write (folder)")
    parser.add_argument("validation", type=Path, help="validation split to write (folder)")
    parser.add_argument("test", type=Path, help="test split to write (folder)")
    parser.add_argument("audit", type=Path, help="data audit to write (.json)")
    args = parser.parse_args()
    params = load_params()

    from fashion.data import dataset, idx
    from fashion.data.audit import audit
    from fashion.data.splitting import stratified_split
    from fashion.evaluation import fonts
    from fashion.files import write_json

    classes = params.dataset.classes
    if params.dataset.format == "folder":
        labelled, test = (dataset.load(args.raw / part) for part in ("train", "test"))
    else:
        labelled, test = (
            idx.read_split(args.raw / f"{part}_images.idx", args.raw / f"{part}_labels.idx", len(classes))
            for part in ("train", "test")
        )
    check_image_shape("training", labelled.image_shape, params.dataset)
    check_image_shape("test", test.image_shape, params.dataset)
    training, validation = stratified_split(labelled.labels, params.validation.images, params.validation.seed)
    fonts.check(classes)
    check_params_fit(labelled.image_shape, len(training))

    dataset.save(labelled, args.train, training)
    dataset.save(labelled, args.validation, validation)
    dataset.save(test, args.test)
    splits = {name: dataset.load(getattr(args, name)) for name in ("train", "validation", "test")}
    write_json(
        args.audit, audit(**splits, classes=classes, near_duplicate_distance=params.audit.near_duplicate_distance)
    )


def check_image_shape(name: str, found: tuple[int, int, int], expected: DatasetParams) -> None:
    """Check that images have the size and the channels in params.yaml.

    Raises:
        UserError: they do not.
    """
    if found != (expected.height, expected.width, expected.channels):
        height, width, channels = found
        raise UserError(
            f"the {name} images have height {height}, width {width} and channels {channels}, expected "
            f"{expected.height}, {expected.width} and {expected.channels}: correct dataset in params.yaml"
        )


if __name__ == "__main__":
    run_command(main)
