"""The command line and the steps that all train stages share."""

import argparse
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fashion import parent  # noqa: F401 - looks for DVC before TensorFlow is imported
from fashion.params import check_params_fit, load_params
from fashion.validation import parse_settings

if TYPE_CHECKING:
    import pandas as pd


def parse_arguments(name: str, description: str | None) -> argparse.Namespace:
    """Return the command-line arguments of the stage `name`."""
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=description)
    parser.add_argument("train", type=Path, help="training split (folder)")
    parser.add_argument("validation", type=Path, help="validation split (folder)")
    parser.add_argument("model", type=Path, help="trained model to write (.keras)")
    parser.add_argument("history", type=Path, help="history to write after each epoch, a row per epoch (.csv)")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a param of the model, such as epochs=3 or augmentation.translate=2; may be repeated",
    )
    return parser.parse_args()


def train(network: ModuleType, args: argparse.Namespace) -> None:
    """Train a network with the params of its section models.NAME."""
    from fashion.data import dataset
    from fashion.files import list_folder, write_text
    from fashion.models import networks, saving, training
    from fashion.stores import file_store

    params, name = load_params(), network.__name__.rpartition(".")[2]
    train, validation = dataset.load(args.train), dataset.load(args.validation)
    check_params_fit(train.image_shape, len(train.images))
    networks.check(params, train.image_shape)
    settings = networks.params_of(name, params, parse_settings(args.settings))
    data = {str(folder): list_folder(folder) for folder in (args.train, args.validation)}

    def write(history: "pd.DataFrame") -> None:
        write_text(args.history, history.to_csv(index=False, float_format="%.6g"))

    with file_store(args.model, networks.training_key(name, settings, data)) as store:
        model, _ = training.train(network, settings, train, validation, store, on_epoch=write)
        saving.save(model, args.model)
