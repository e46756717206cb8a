"""Draw the data and the results of every model, as pictures and as one page that opens with no network."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.plot", description=__doc__)
    parser.add_argument("train", type=Path, help="training split (.npz)")
    parser.add_argument("validation", type=Path, help="validation split (.npz)")
    parser.add_argument("test", type=Path, help="test split (.npz)")
    parser.add_argument("audit", type=Path, help="data audit (.json)")
    parser.add_argument("figures", type=Path, help="folder to write the pictures to (.png)")
    parser.add_argument("page", type=Path, help="report page to write (.html)")
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        required=True,
        nargs=4,
        metavar=("NAME", "HISTORY", "METRICS", "PROBABILITIES"),
        help="a model to report on, and its files (.csv, .json, .npy); once per model",
    )
    parser.add_argument(
        "--export",
        dest="exports",
        action="append",
        default=[],
        nargs=3,
        metavar=("NAME", "METRICS", "PROBABILITIES"),
        help="what the export stage says of a model (.json, .npy); once per exported model",
    )
    args = parser.parse_args()
    params = load_params()

    import numpy as np
    import pandas as pd

    from fashion.data import dataset
    from fashion.evaluation import figures, report
    from fashion.files import atomic_write, read_json, write_text

    data = report.Data(
        params.dataset.name,
        params.dataset.classes,
        {name: dataset.load(getattr(args, name)) for name in ("train", "validation", "test")},
        read_json(args.audit),
    )
    models = {
        name: report.ModelResults(pd.read_csv(history), read_json(Path(metrics)), np.load(probabilities))
        for name, history, metrics, probabilities in args.models
    }
    exports = {
        name: report.Export(read_json(Path(metrics)), np.load(probabilities))
        for name, metrics, probabilities in args.exports
    }
    bins = params.evaluation.calibration_bins
    pictures = {name: figures.png(figure) for name, figure in report.draw(data, models, exports, bins).items()}

    for name, picture in pictures.items():
        with atomic_write(args.figures / f"{name}.png") as file:
            file.write(picture)
    write_text(args.page, report.page(data, models, exports, pictures, bins))


if __name__ == "__main__":
    run_command(main)
