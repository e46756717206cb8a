"""The figures of a review: arrays in, Matplotlib figures out."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fashion.data.dataset import Images
from fashion.evaluation.figures import COLOURS, CORRECT, GREY, INK, WRONG, caption, class_matrix, grid, heading, show
from fashion.evaluation.metrics import confusion_matrix
from fashion.review.compare import Comparison, PairedResult, ReviewResult


def draw(result: ReviewResult) -> dict[str, Figure]:
    """Return the figures by name: curves, confusion-MODEL and changed-MODEL, where there is something to show."""
    trained = [model for model in result.models if _histories(model)]
    figures = {"curves": _curves(trained)} if trained else {}
    images, classes = result.head.test_set.images, result.head.rules.classes
    for model in result.models:
        if model.paired and not model.paired.unchanged:
            figures[f"confusion-{model.name}"] = _confusion_change(model.name, model.paired, classes)
            if images is not None and model.paired.most_changed:
                figures[f"changed-{model.name}"] = _most_changed(model.name, model.paired, images, classes)
    return figures


def _histories(model: Comparison) -> dict[str, pd.DataFrame]:
    ends = {"base": model.base, "head": model.head}
    return {end: side.history for end, side in ends.items() if side and side.history is not None}


def _curves(models: Sequence[Comparison]) -> Figure:
    """Draw the validation accuracy per epoch of both revisions, a panel per model."""
    figure = Figure(figsize=(4.6 * len(models), 3.6), layout="constrained")
    figure.suptitle("Validation accuracy: base dashed, head solid")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for ax, colour, model in zip(panels, itertools.cycle(COLOURS), models, strict=False):
        for end, history in _histories(model).items():
            style = {"linestyle": "--", "color": GREY} if end == "base" else {"color": colour}
            ax.plot(history["epoch"], history["val_accuracy"], marker="o", markersize=3.5, **style)
        ax.set_title(model.name)
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel("validation accuracy")
    return figure


def _confusion_change(name: str, pair: PairedResult, classes: Sequence[str]) -> Figure:
    """Draw the difference between the confusion matrices of head and base."""
    change = confusion_matrix(pair.head) - confusion_matrix(pair.base)
    good = np.where(np.eye(len(classes), dtype=bool), change, -change)  # more on the diagonal, fewer elsewhere
    most = max(1, int(np.abs(change).max()))
    figure, ax, points = class_matrix(classes, 0.5)
    ax.imshow(good, cmap="PiYG", vmin=-most, vmax=most)
    for row, column in np.argwhere(change) if points else ():
        ink = "white" if abs(change[row, column]) > 0.7 * most else INK
        ax.text(column, row, f"{change[row, column]:+d}", ha="center", va="center", fontsize=points, color=ink)
    ax.set_title(f"{name}: head minus base (green: better)")
    return figure


def _most_changed(name: str, pair: PairedResult, images: Images, classes: Sequence[str]) -> Figure:
    """Draw the images whose probabilities changed most, with both predictions: green if correct, red if wrong."""
    title = f"{name}: the predictions that changed most"
    figure, axes = grid(1, max(3, len(pair.most_changed)), cell=(1.75, 2.6), title=title)  # 3: room for the title
    for ax, index in zip(axes.flat, pair.most_changed, strict=False):
        actual = pair.head.labels[index]
        show(ax, images[index])
        heading(ax, f"{index}: {classes[actual]}")
        for line, (end, predictions) in enumerate({"base": pair.base, "head": pair.head}.items()):
            text = f"{end}: {classes[predictions.predicted[index]]}"
            if predictions.has_probabilities:
                text += f"\n{predictions.confidence[index]:.1%}"
            caption(ax, text, CORRECT if predictions.correct[index] else WRONG, below=0.05 + 0.24 * line)
    return figure
