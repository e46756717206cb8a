"""Summarise the steps: a table, and a figure of the accuracy and the training time of each step."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fashion.errors import run_command

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.ladder.summary", description=__doc__)
    parser.add_argument("trials", type=Path, help="trials of the study (.csv)")
    parser.add_argument("table", type=Path, help="table to write (.csv)")
    parser.add_argument("figure", type=Path, help="figure to write (.png)")
    args = parser.parse_args()

    import pandas as pd

    from fashion.evaluation.figures import png
    from fashion.files import write_bytes, write_text

    table = summarise(pd.read_csv(args.trials))
    write_text(args.table, table.to_csv(float_format="%.4g", index=False))
    write_bytes(args.figure, png(draw(table)))
    print(markdown(pd.read_csv(args.table)))


def summarise(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row per step, in the order of the trials.

    Args:
        trials: a row per training run, with variant ("MODEL: STEP"), val_accuracy (0 to 1), seconds of processor time,
            parameters and inference_flops.

    Returns:
        model, step, seeds (their number), accuracy and accuracy_std (mean and standard deviation on the validation
        images), time (mean, relative to the model's first step), parameters, inference_flops.
    """
    model, step = trials["variant"].str.split(": ", n=1, expand=True).to_numpy().T
    table = (
        trials.assign(model=model, step=step)
        .groupby(["model", "step"], sort=False)
        .agg(
            seeds=("seed", "count"),
            accuracy=("val_accuracy", "mean"),
            accuracy_std=("val_accuracy", "std"),
            time=("seconds", "mean"),
            parameters=("parameters", "first"),
            inference_flops=("inference_flops", "first"),
        )
        .reset_index()
    )
    table["time"] /= table.groupby("model")["time"].transform("first")
    return table


def markdown(table: "pd.DataFrame") -> str:
    """Return a Markdown table per model."""
    header = "| Step | Validation accuracy | Training time | Parameters | MFLOP |\n|---|---:|---:|---:|---:|"
    tables = []
    for _, steps in table.groupby("model", sort=False):
        rows = [
            f"| {row['step']} | {row['accuracy']:.2%} ± {row['accuracy_std']:.2%} | {row['time']:.2f} "
            f"| {row['parameters']:,} | {row['inference_flops'] / 1e6:.1f} |"
            for _, row in steps.iterrows()
        ]
        tables.append("\n".join([header, *rows]))
    return "\n\n".join(tables)


def draw(table: "pd.DataFrame") -> "Figure":
    """Draw the accuracy of each step, and its training time."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    models = table["model"].unique()
    figure = Figure(figsize=(9, 0.8 + 0.3 * len(table)), layout="constrained")
    heights = [(table["model"] == model).sum() for model in models]
    panels = figure.subplots(len(models), 2, squeeze=False, sharex="col", sharey="row", height_ratios=heights)
    for (accuracy, time), model in zip(panels, models, strict=True):
        steps = table[table["model"] == model]
        accuracy.errorbar(steps["accuracy"], steps["step"], xerr=steps["accuracy_std"], fmt="o", capsize=3)
        accuracy.invert_yaxis()
        accuracy.set_title(model.upper(), loc="left")
        time.barh(steps["step"], steps["time"])
    panels[-1, 0].set_xlabel("validation accuracy")
    panels[-1, 0].xaxis.set_major_formatter(PercentFormatter(1))
    panels[-1, 1].set_xlabel("training time, relative to the first step")
    return figure


if __name__ == "__main__":
    run_command(main)
