"""Compare each variant with the default, seed by seed: a table and a figure, with 95% intervals."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fashion.errors import run_command

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.ablation.summary", description=__doc__)
    parser.add_argument("trials", type=Path, help="trials of the study (.csv)")
    parser.add_argument("table", type=Path, help="table to write (.csv)")
    parser.add_argument("figure", type=Path, help="figure to write (.png)")
    args = parser.parse_args()

    import pandas as pd

    from fashion.evaluation.figures import png
    from fashion.files import write_bytes, write_text

    table = compare(pd.read_csv(args.trials))
    write_text(args.table, table.to_csv(float_format="%.4g"))
    write_bytes(args.figure, png(draw(table)))
    print(markdown(pd.read_csv(args.table, index_col="variant")))


def compare(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Compare each variant with the default.

    Args:
        trials: a row per training, with variant, seed, val_accuracy (0 to 1), seconds of processor time and parameters.

    Returns:
        A row per variant, the most accurate first: seeds (their number), accuracy (mean on the validation images),
        points (mean difference in accuracy to the default with the same seed, in percentage points), points_interval
        (half the width of its 95% interval, Student's t), time and time_interval (the same for the ratio of processor
        times), parameters.
    """
    import pandas as pd
    from scipy.stats import t

    default = trials[trials["variant"] == "default"].set_index("seed")
    rows = []
    for variant, group in trials.groupby("variant"):
        pairs = group.set_index("seed").join(default.add_suffix("_default"), how="inner")
        points = 100 * (pairs["val_accuracy"] - pairs["val_accuracy_default"])
        times = pairs["seconds"] / pairs["seconds_default"]
        half = t.ppf(0.975, len(pairs) - 1) / len(pairs) ** 0.5
        rows.append(
            {
                "variant": variant,
                "seeds": len(pairs),
                "accuracy": pairs["val_accuracy"].mean(),
                "points": points.mean(),
                "points_interval": half * points.std(),
                "time": times.mean(),
                "time_interval": half * times.std(),
                "parameters": pairs["parameters"].iloc[0],
            }
        )
    return pd.DataFrame(rows).set_index("variant").sort_values("points", ascending=False)


def markdown(table: "pd.DataFrame") -> str:
    """Return the table as Markdown, as in README.md."""
    header = ("Variant", "Validation accuracy", "Difference from default, points", "Processor time", "Parameters")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for variant, row in table.iterrows():
        change = f"{row['points']:+.2f} ± {row['points_interval']:.2f}"
        time = f"{row['time']:.2f} ± {row['time_interval']:.2f}"
        lines.append(f"| {variant} | {row['accuracy']:.2%} | {change} | {time} | {row['parameters']:,.0f} |")
    return "\n".join(lines)


def draw(table: "pd.DataFrame") -> "Figure":
    """Draw the change in accuracy and in processor time of each variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.3 * len(table)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, column, start, label in (
        (panels[0], "points", 0, "validation accuracy, difference from default, points"),
        (panels[1], "time", 1, "processor time of training, relative to the default"),
    ):
        ax.axvline(start, color="#8a8a8a", linewidth=1)
        ax.errorbar(table[column], table.index, xerr=table[f"{column}_interval"], fmt="o", capsize=3)
        ax.set_xlabel(label)
        ax.locator_params(axis="x", nbins=6)
    panels[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    run_command(main)
