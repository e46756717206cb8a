"""Train the convolutional network on the training split."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import change, check_params_fit, load_params, read_yaml


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.train_cnn", description=__doc__)
    parser.add_argument("train", type=Path, help="training split (.npz)")
    parser.add_argument("validation", type=Path, help="validation split (.npz)")
    parser.add_argument("model", type=Path, help="trained model to write (.keras)")
    parser.add_argument("history", type=Path, help="history to write, a row per epoch (.csv)")
    parser.add_argument("--changes", type=Path, help="other values for some of the params of the CNN (.yaml)")
    parser.add_argument("--seed", type=int, help="seed to use instead of the one in params.yaml")
    args = parser.parse_args()
    params = load_params()

    from fashion.data import dataset
    from fashion.files import write_text
    from fashion.models import archive, cnn, training

    changes = {} if args.changes is None else read_yaml(args.changes)
    settings = change(params.cnn, changes if args.seed is None else {**changes, "seed": args.seed})
    train, validation = dataset.load(args.train), dataset.load(args.validation)
    check_params_fit(train.image_shape, len(train.images))
    model, history = training.train(cnn.build, settings, train, validation)
    archive.save(model, args.model)
    write_text(args.history, history.to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    run_command(main)
