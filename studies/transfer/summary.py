"""Compare the accuracy and the training time of all methods, with all images and with few."""

import argparse
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion.errors import run_command

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAMES = {
    "probe": "linear probe",
    "finetuned": "fine-tuned",
    "random": "random weights",
    "cnn": "CNN",
    "dnn": "DNN",
}


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.summary", description=__doc__)
    parser.add_argument("results", type=Path, help="results of the trained models (.csv)")
    parser.add_argument("comparison", type=Path, help="comparison of fine-tuning with the CNN (.json)")
    parser.add_argument("seeds", type=Path, help="trials of studies/seeds: the CNN and the DNN on all images (.csv)")
    parser.add_argument("table", type=Path, help="table to write, a row per method and number of images (.csv)")
    parser.add_argument("curves", type=Path, help="learning curves to write (.png)")
    parser.add_argument("costs", type=Path, help="figure of accuracy against training time to write (.png)")
    args = parser.parse_args()

    import pandas as pd

    from fashion.evaluation.figures import png
    from fashion.files import read_json, write_bytes, write_text

    results = pd.read_csv(args.results, dtype={"images": str})
    table = summarize(collect(results, pd.read_csv(args.seeds)))
    write_text(args.table, table.to_csv(index=False, float_format="%.4g"))
    for path, figure in ((args.curves, draw_curves(table)), (args.costs, draw_costs(table))):
        write_bytes(path, png(figure))
    print(markdown(pd.read_csv(args.table, dtype={"images": str}), read_json(args.comparison)))


def collect(results: "pd.DataFrame", own: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row per trial: method, images, accuracy (0 to 1) and ratio (time / median time of the CNN).

    Args:
        results: as train.py writes them, with images as text.
        own: trials of this project's networks on all images: model, seed, accuracy and seconds of processor time. Those
            with other seeds than the results are left out.
    """
    import pandas as pd

    own = own[own["model"].isin(NAMES) & own["seed"].isin(results["seed"])]
    trials = pd.concat([results, own.assign(method=own["model"], images="all")])
    return trials.assign(ratio=trials["seconds"] / own.loc[own["model"] == "cnn", "seconds"].median())


def summarize(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Summarise the trials of each method and number of images per class.

    Args:
        trials: as `collect` returns them.

    Returns:
        method, images, seeds (their number), accuracy (mean), deviation (standard deviation over the seeds), ratio
        (median over the seeds).
    """
    groups = trials.groupby(["method", "images"])
    table = groups.agg(
        seeds=("accuracy", "size"),
        accuracy=("accuracy", "mean"),
        deviation=("accuracy", "std"),
        ratio=("ratio", "median"),
    ).reset_index()
    order = {name: position for position, name in enumerate(NAMES)}
    return table.sort_values(
        ["images", "method"],
        key=lambda column: column.map(_images if column.name == "images" else order),
        kind="stable",
    )


def markdown(table: "pd.DataFrame", comparison: dict[str, Any]) -> str:
    """Return the tables as Markdown, as in README.md."""
    numbers = list(dict.fromkeys(table["images"]))
    cells = {(row["method"], row["images"]): row for row in table.to_dict("records")}
    lines = ["| Method, all images | Test accuracy | Seeds | Time, x CNN |", "|---|---:|---:|---:|"]
    for method, name in NAMES.items():
        if row := cells.get((method, "all")):
            lines.append(f"| {name} | {_accuracy(row, 2)} | {row['seeds']} | {row['ratio']:.2f} |")
    lines += ["", f"| Images per class | {' | '.join(numbers)} |", "|---|" + "---:|" * len(numbers)]
    for method, name in NAMES.items():
        rows = (cells.get((method, number)) for number in numbers)
        shown = ("-" if row is None else _accuracy(row, 1) for row in rows)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    differences = (comparison["differences"].get(number) for number in numbers)
    shown = ("-" if pair is None else f"{100 * pair['mean']:+.1f} ± {100 * pair['std']:.1f}" for pair in differences)
    names = " minus ".join(NAMES[comparison[side]] for side in ("head", "base"))
    lines.append(f"| {names}, points | {' | '.join(shown)} |")
    lines += ["", "| Seed | Fixed | Broken | p (McNemar, Holm-adjusted) |", "|---|---:|---:|---:|"]
    for seed, test in comparison["seeds"].items():
        lines.append(f"| {seed} | {test['fixed']} | {test['broken']} | {test['p_value']:.2g} |")
    return "\n".join(lines)


def draw_curves(table: "pd.DataFrame") -> "Figure":
    """Draw test accuracy against images per class, with mean and standard deviation over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    for method, name in NAMES.items():
        rows = table[table["method"] == method]
        if len(rows) > 1:
            ax.errorbar(
                rows["images"].map(_images),
                100 * rows["accuracy"],
                100 * rows["deviation"],
                label=name,
                marker="o",
                capsize=3,
            )
    ax.set_xscale("log")
    ax.set_xticks([_images(number) for number in table["images"].unique()], table["images"].unique())
    ax.minorticks_off()
    ax.set_xlabel("training images per class")
    ax.set_ylabel("test accuracy, %")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def draw_costs(table: "pd.DataFrame") -> "Figure":
    """Draw test accuracy against training time, with all images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    for row in table[table["images"] == "all"].to_dict("records"):
        accuracy, deviation = 100 * row["accuracy"], 100 * row["deviation"]
        ax.errorbar(row["ratio"], accuracy, deviation, fmt="o", capsize=3, label=NAMES[row["method"]])
    ax.set_xlabel("processor time of training, relative to the CNN")
    ax.set_ylabel("test accuracy, %")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def _accuracy(row: Mapping[Hashable, Any], digits: int) -> str:
    """Return the accuracy of a row of the table, with its deviation if there are several seeds."""
    spread = f" ± {row['deviation']:.{digits}%}" if row["seeds"] > 1 else ""
    return f"{row['accuracy']:.{digits}%}{spread}"


def _images(number: str) -> int:
    """Return the number of images per class."""
    return 5500 if number == "all" else int(number)


if __name__ == "__main__":
    run_command(main)
