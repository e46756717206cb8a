"""Compare the methods: what each reaches and costs with all images, and with few."""

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
    "random": "the same from random weights",
    "cnn": "the project's CNN",
    "dnn": "the project's DNN",
}


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.summary", description=__doc__)
    parser.add_argument("results", type=Path, help="results of the trained models (.csv)")
    parser.add_argument("comparison", type=Path, help="comparison of fine-tuning with the CNN (.json)")
    parser.add_argument("features", type=Path, help="what the features of the training images cost (.json)")
    parser.add_argument(
        "benchmarks",
        type=Path,
        help="reports/benchmarks.json, for T_ref and the project's models trained on all images",
    )
    parser.add_argument("table", type=Path, help="table to write (.csv): a row per method and number of images")
    parser.add_argument("curves", type=Path, help="learning curves to write (.png)")
    parser.add_argument("costs", type=Path, help="figure of accuracy against cost to write (.png)")
    args = parser.parse_args()

    import pandas as pd

    from fashion.evaluation.figures import png
    from fashion.files import atomic_write, read_json, write_text

    results = pd.read_csv(args.results, dtype={"images": str})
    table = summarize(collect(results, read_json(args.features), read_json(args.benchmarks)))
    write_text(args.table, table.to_csv(index=False, float_format="%.4g"))
    for path, figure in ((args.curves, draw_curves(table)), (args.costs, draw_costs(table))):
        with atomic_write(path) as file:
            file.write(png(figure))
    print(markdown(pd.read_csv(args.table, dtype={"images": str}), read_json(args.comparison)))


def collect(results: "pd.DataFrame", features: Mapping[str, float], benchmarks: Mapping[str, Any]) -> "pd.DataFrame":
    """Return a row per training: method, images, accuracy (0 to 1) and ratio, its time as a multiple of T_ref.

    With all images, what a method needs of the features stage is part of its time.

    Args:
        results: as the judge stage writes them.
        features: seconds of each part of the features stage, for the training images.
        benchmarks: reports/benchmarks.json.
    """
    import pandas as pd

    times = benchmarks["time_to_accuracy"]
    own = [trial | {"method": name, "images": "all"} for name in ("cnn", "dnn") for trial in times[name]]
    trials = pd.concat([results, pd.DataFrame(own)])
    for method, parts in {"probe": ("maps", "features"), "finetuned": ("maps", "mirrored")}.items():
        needing = (trials["method"] == method) & (trials["images"] == "all")
        trials.loc[needing, "seconds"] += sum(features[part] for part in parts)
    t_ref = pd.DataFrame(times["tutorial"])["seconds"].median()
    return trials.assign(ratio=trials["seconds"] / t_ref)


def summarize(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row per method and number of images of each class: seeds, accuracy, deviation over seeds, median cost.

    Args:
        trials: as `collect` returns them.
    """
    groups = trials.groupby(["method", "images"])
    table = groups.agg(
        seeds=("accuracy", "size"),
        accuracy=("accuracy", "mean"),
        deviation=("accuracy", "std"),
        ratio=("ratio", "median"),
    ).reset_index()
    order = {name: place for place, name in enumerate(NAMES)}
    return table.sort_values(
        ["images", "method"],
        key=lambda column: column.map(_images if column.name == "images" else order),
        kind="stable",
    )


def markdown(table: "pd.DataFrame", comparison: dict[str, Any]) -> str:
    """Return the tables for people, as the README beside this file has them."""
    numbers = list(dict.fromkeys(table["images"]))
    cells = {(row["method"], row["images"]): row for row in table.to_dict("records")}
    lines = ["| Method, all images | Test accuracy | Seeds | Time, x T_ref |", "|---|---:|---:|---:|"]
    for method, name in NAMES.items():
        row = cells[method, "all"]
        lines.append(f"| {name} | {_accuracy(row, 2)} | {row['seeds']} | {row['ratio']:.2f} |")
    lines += ["", f"| Images of each class | {' | '.join(numbers)} |", "|---|" + "---:|" * len(numbers)]
    for method, name in NAMES.items():
        found = (cells.get((method, number)) for number in numbers)
        shown = ("-" if row is None else _accuracy(row, 1) for row in found)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    paired = (comparison["differences"].get(number) for number in numbers)
    shown = ("-" if found is None else f"{100 * found['mean']:+.1f} ± {100 * found['std']:.1f}" for found in paired)
    names = " less ".join(NAMES[comparison[side]] for side in ("head", "base"))
    lines.append(f"| {names}, points | {' | '.join(shown)} |")
    lines += ["", "| Seed | Fixed | Broken | p of McNemar's test, by Holm |", "|---|---:|---:|---:|"]
    for seed, found in comparison["seeds"].items():
        lines.append(f"| {seed} | {found['fixed']} | {found['broken']} | {found['p_value']:.2g} |")
    return "\n".join(lines)


def draw_curves(table: "pd.DataFrame") -> "Figure":
    """Return the learning curves: test accuracy against images of each class, mean and deviation over seeds."""
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
    ax.set_xlabel("training images of each class")
    ax.set_ylabel("test accuracy, %")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def draw_costs(table: "pd.DataFrame") -> "Figure":
    """Return the figure of what each method reaches with all images, against what its training takes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    for row in table[table["images"] == "all"].to_dict("records"):
        accuracy, deviation = 100 * row["accuracy"], 100 * row["deviation"]
        ax.errorbar(row["ratio"], accuracy, deviation, fmt="o", capsize=3, label=NAMES[row["method"]])
    ax.set_xlabel("time of training, multiple of T_ref")
    ax.set_ylabel("test accuracy, %")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def _accuracy(row: Mapping[Hashable, Any], digits: int) -> str:
    """Return the accuracy of a row of the table with its deviation, if there is more than one seed."""
    spread = f" ± {row['deviation']:.{digits}%}" if row["seeds"] > 1 else ""
    return f"{row['accuracy']:.{digits}%}{spread}"


def _images(number: str) -> int:
    """Return a number of images of each class to draw and to sort by."""
    return 5500 if number == "all" else int(number)


if __name__ == "__main__":
    run_command(main)
