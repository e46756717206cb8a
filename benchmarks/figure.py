"""Draw the test accuracy of the models against training time, next to published accuracies: reports/benchmarks.png.

    python -m benchmarks.figure

Times are shown for each kind of machine in reports/benchmarks.json, relative to its own T_ref. Accuracies are means
over seeds: those of the studies or, for models that no study trains or whose params have changed since the benchmark,
those of the benchmark.
"""

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import TITLES
from fashion.errors import run_command
from fashion.files import read_json, write_bytes
from fashion.params import load_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BENCHMARKS, FIGURE = Path("reports/benchmarks.json"), Path("reports/benchmarks.png")
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
LABELS = {"tutorial": "CNN of the Keras tutorials", "demo": "iterative/demo-fashion-mnist"}
# Single networks, after the last epoch. For cutout, its size with the best test accuracy, so slightly optimistic. From
# https://github.com/hysts/pytorch_image_classification and, the last, https://github.com/Liang-yc/fn_playground
PUBLISHED = {
    "ResNet-20 (0.4 GPU hours)": 0.9496,
    "ResNet-20, cutout": 0.9551,
    "ResNet-20, 4 x as wide, cutout\n(1.5 GPU hours)": 0.9589,
    "shake-shake, cutout\n(14 GPU hours)": 0.9628,
    "shake-shake, cutout\n(27 GPU hours)": 0.9640,
    "WRN-40-4, CutMix\n(1,000 epochs)": 0.9659,
}


def main() -> None:
    """Draw the figure."""
    argparse.ArgumentParser(prog="python -m benchmarks.figure", description=__doc__).parse_args()
    write()


def write() -> None:
    """Write the figure."""
    from fashion.evaluation import results
    from fashion.evaluation.figures import png

    dataset = load_params().dataset.name
    found = results.read(Path())
    machines = {
        TITLES[kind].lower(): points(
            machine,
            {
                one.name: one.accuracy_mean
                for one in found
                if one.accuracy_mean
                and (kind not in one.train_time_commits or one.name not in machine["time_to_accuracy"])
            },
        )
        for kind, machine in read_json(BENCHMARKS).items()
        if machine["dataset"] == dataset
    }
    published = PUBLISHED if dataset == "Fashion-MNIST" else {}
    write_bytes(FIGURE, png(draw(machines, published)))


def points(machine: Mapping[str, Any], accuracies: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return training time, relative to T_ref, and test accuracy of each model, fastest first.

    Without an entry in `accuracies`, the accuracy is that of the benchmark's own trainings.
    """
    runs = machine["time_to_accuracy"]
    measured = {name: statistics.mean(run["accuracy"] for run in runs[name]) for name in runs}
    measured.update(accuracies)
    times = sorted(machine["train_time_ratio"].items(), key=lambda item: item[1])
    return {name: (time, measured[name]) for name, time in times if name in measured}


def draw(machines: Mapping[str, Mapping[str, tuple[float, float]]], published: Mapping[str, float]) -> "Figure":
    """Draw the models measured here on the left, and published results, without comparable times, on the right.

    Args:
        machines: training time and accuracy by model, for each kind of machine.
        published: accuracy by network.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from fashion.evaluation.figures import COLOURS, GREY

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    measured, others = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    times, accuracies = zip(*(point for models in machines.values() for point in models.values()), strict=True)
    for number, (kind, models) in enumerate(machines.items()):
        colours = [COLOURS[2 if name in LABELS else 0] for name in models]
        faces = "none" if number else colours
        measured.scatter(*zip(*models.values(), strict=True), edgecolors=colours, facecolors=faces, label=kind)
    for name in dict.fromkeys(name for models in machines.values() for name in models):
        point = max(models[name] for models in machines.values() if name in models)  # the slowest
        offset = {"demo": 7, "tutorial": -14}.get(name, -4)  # these two are close to each other
        measured.annotate(LABELS.get(name, name), point, (7, offset), textcoords="offset points")
    if len(machines) > 1:
        legend = measured.legend(loc="upper left")
        for number, handle in enumerate(legend.legend_handles):
            handle.set(edgecolor=GREY, facecolor="none" if number else GREY)
    measured.set_xscale("log")
    measured.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    measured.minorticks_off()
    measured.set_xlim(right=4 * max(times))
    measured.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    measured.set_xlabel("training time, x T_ref")
    measured.set_ylabel("test accuracy")
    others.plot(range(len(published)), list(published.values()), "s", color=COLOURS[1])
    others.set_xticks(range(len(published)), list(published), rotation=90, fontsize="small")
    others.set_xlim(-0.7, len(published) - 0.3)
    others.set_title("published results, on GPUs", fontsize="medium")
    others.set_visible(bool(published))
    measured.set_ylim(bottom=min(accuracies) - 0.008)
    return figure


if __name__ == "__main__":
    run_command(main)
