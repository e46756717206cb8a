"""Write the model card of the exported models."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.card", description=__doc__)
    parser.add_argument("audit", type=Path, help="data audit (.json)")
    parser.add_argument("about", type=Path, help="description of the data set (.md)")
    parser.add_argument("card", type=Path, help="model card to write (.md)")
    args = parser.parse_args()
    params = load_params()

    from fashion.data import about
    from fashion.evaluation import model_card
    from fashion.evaluation.model_results import ModelResults
    from fashion.files import read_json, write_text

    description = about.load(args.about, params.dataset.name)
    models = {name: ModelResults.read(name, params.dataset.classes) for name in params.models}
    audit = read_json(args.audit)
    write_text(args.card, model_card.model_card(params.dataset, description, audit, params.models, models))


if __name__ == "__main__":
    run_command(main)
