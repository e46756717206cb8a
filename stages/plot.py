"""Draw the data and the results of all models, as figures and as one page that needs no network."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.plot", description=__doc__)
    parser.add_argument("train", type=Path, help="training split (folder)")
    parser.add_argument("validation", type=Path, help="validation split (folder)")
    parser.add_argument("test", type=Path, help="test split (folder)")
    parser.add_argument("audit", type=Path, help="data audit (.json)")
    parser.add_argument("figures", type=Path, help="folder to write the figures to (.png)")
    parser.add_argument("page", type=Path, help="report page to write (.html)")
    args = parser.parse_args()
    params = load_params()

    from fashion.data import dataset
    from fashion.evaluation import figures, report
    from fashion.evaluation.model_results import ModelResults
    from fashion.files import read_json, write_bytes, write_text

    splits = {name: dataset.load(getattr(args, name)) for name in ("train", "validation", "test")}
    data = report.Data(params.dataset.name, params.dataset.classes, splits, read_json(args.audit))
    models = {name: ModelResults.read(name, params.dataset.classes) for name in params.models}
    bins = params.evaluation.calibration_bins
    drawn = {name: figures.png(figure) for name, figure in report.draw(data, models, bins).items()}

    for name, content in drawn.items():
        write_bytes(args.figures / f"{name}.png", content)
    write_text(args.page, report.page(data, models, drawn, bins))


if __name__ == "__main__":
    run_command(main)
