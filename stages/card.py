"""Write the model card of the exported models, from what the other stages recorded."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.card", description=__doc__)
    parser.add_argument("test", type=Path, help="test split (.npz)")
    parser.add_argument("audit", type=Path, help="data audit (.json)")
    parser.add_argument("card", type=Path, help="model card to write (.md)")
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        required=True,
        nargs=4,
        metavar=("NAME", "METRICS", "EXPORT", "PROBABILITIES"),
        help="an exported model, and its files (.json, .json, .npy); once per model",
    )
    args = parser.parse_args()
    params = load_params()
    recipes = {"dnn": params.dnn, "cnn": params.cnn}
    if unknown := {name for name, *_ in args.models} - recipes.keys():
        parser.error(f"no params of {', '.join(sorted(unknown))}; there are those of {', '.join(recipes)}")

    import numpy as np

    from fashion.data import dataset
    from fashion.evaluation import card
    from fashion.files import read_json, write_text

    models = {
        name: card.Exported(
            read_json(Path(metrics))["parameters"],
            recipes[name].model_dump(mode="json"),
            read_json(Path(export)),
            np.load(probabilities),
        )
        for name, metrics, export, probabilities in args.models
    }
    labels = dataset.load(args.test).labels
    text = card.card(params.dataset.name, params.dataset.classes, read_json(args.audit), labels, models)
    write_text(args.card, text)


if __name__ == "__main__":
    run_command(main)
