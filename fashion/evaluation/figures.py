"""Figures: arrays in, a Matplotlib `Figure` out, without files or a display.

The style is set here only; a user's matplotlibrc has no effect.
"""

import io
import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fashion.data.dataset import Image, Split
from fashion.evaluation import fonts
from fashion.evaluation.metrics import calibration_error, reliability
from fashion.evaluation.predictions import Predictions

COLOURS = ("#7b4fc9", "#0a94a8", "#e4632a", "#5a8f29")
MIN_BIN_IMAGES = 10
SAMPLES, PREDICTIONS = 12, 6  # images per row
INK, GREY, CORRECT, WRONG = "#222222", "#8a8a8a", "#1b7837", "#c1272d"
MAX_SIDE = 24  # inches, of a figure with a row per class
MIN_POINTS = 5.0  # of legible text


warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `fonts.check` has checked the class names
mpl.rcdefaults()
mpl.rcParams.update(
    {
        "axes.edgecolor": GREY,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "figure.dpi": 110,
        "figure.titlesize": 13,
        "figure.titleweight": "bold",
        "font.family": fonts.families(),
        "font.size": 10,
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": INK,
        "ytick.color": INK,
    }
)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, byte-identical for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def samples(split: Split, classes: Sequence[str], title: str) -> Figure:
    """Draw the first images of each class, a class per row with its name."""
    left = max(1.2, 0.2 + widest(classes))
    figure, axes = grid(len(classes), SAMPLES, cell=(0.62, 0.62), title=title, left=left)
    for label, row in enumerate(axes):
        row[0].text(-0.15, 0.5, classes[label], transform=row[0].transAxes, ha="right", va="center")
        for ax, index in zip(row, np.flatnonzero(split.labels == label), strict=False):
            show(ax, split.images[index])
    return figure


def learning_curves(histories: Mapping[str, pd.DataFrame], quantity: str) -> Figure:
    """Draw `quantity` ("accuracy" or "loss") of the training and validation images by epoch, a panel per model."""
    figure = Figure(figsize=(4.6 * len(histories), 3.8), layout="constrained")
    figure.suptitle(f"Training and validation {quantity}")
    panels = figure.subplots(1, len(histories), sharey=True, squeeze=False)[0]
    for ax, colour, (name, history) in zip(panels, itertools.cycle(COLOURS), histories.items(), strict=False):
        ax.set_title(name.upper())
        training, validation = history[quantity], history[f"val_{quantity}"]
        training_above = training.iloc[-1] > validation.iloc[-1]
        for values, style, label, above in (
            (training, "--", "training", training_above),
            (validation, "-", "validation", not training_above),
        ):
            ax.plot(history["epoch"], values, style, color=colour, marker="o", markersize=3.5)
            ax.annotate(
                label,
                (history["epoch"].iloc[-1], values.iloc[-1]),
                xytext=(7, 1 if above else -1),
                textcoords="offset points",
                color=colour,
                va="bottom" if above else "top",
            )
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.margins(x=0.03)
        ax.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel(quantity)
    return figure


def confusion(matrix: Int64[np.ndarray, "classes classes"], classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix, actual classes in rows; colour is the fraction of the row, except on the diagonal."""
    figure, ax, points = class_matrix(classes, 0.56)
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(fractions, 0)
    most = max(float(fractions.max()), 1e-9)
    ax.imshow(fractions, cmap="Oranges", vmin=0, vmax=most)
    for row, column in np.argwhere(matrix) if points else ():
        ax.text(
            column,
            row,
            f"{matrix[row, column]:,}",
            ha="center",
            va="center",
            fontsize=points,
            fontweight="bold" if row == column else "normal",
            color="white" if fractions[row, column] > 0.6 * most else INK,
        )
    ax.set_title(title)
    return figure


def class_matrix(classes: Sequence[str], cell: float) -> tuple[Figure, Axes, float]:
    """Return a figure for a matrix of actual and predicted classes, and the size of its numbers in points.

    Args:
        classes: names of the classes.
        cell: size of a cell in inches; smaller if the figure would be larger than `MAX_SIDE`.

    Returns:
        The figure, its axes, and the size of the numbers: 0 if they would not be legible.
    """
    labels = max(0, widest(classes) - 1)
    size = min(max(4.4, 1.6 + cell * len(classes)) + labels, MAX_SIDE)
    scale = min(1.0, (size - labels - 1.6) / (cell * len(classes)))
    figure = Figure(figsize=(size + 0.4, size), layout="constrained")
    ax = figure.subplots()
    ticks = {"fontsize": mpl.rcParams["font.size"] * scale}
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor", **ticks)
    ax.set_yticks(range(len(classes)), classes, **ticks)
    ax.set(xlabel="predicted", ylabel="actual")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure, ax, 9 * scale if 9 * scale >= MIN_POINTS else 0.0


def predictions(
    split: Split,
    predictions: Predictions,
    indices: Int64[np.ndarray, "m"],
    title: str,
) -> Figure:
    """Draw images with actual label, predicted label and confidence: green if correct, red if wrong."""
    rows = max(1, -(-len(indices) // PREDICTIONS))
    figure, axes = grid(rows, PREDICTIONS, cell=(1.55, 2.25), title=title)
    shown, classes = predictions.take(indices), predictions.classes
    for ax, index, actual, predicted, confidence in zip(
        axes.flat, indices, shown.labels, shown.predicted, shown.confidence, strict=False
    ):
        text = f"predicted: {classes[predicted]}\nconfidence {confidence:.1%}"
        prediction(ax, split.images[index], f"actual: {classes[actual]}", text, bool(predicted == actual))
    return figure


def prediction(ax: Axes, image: Image, title: str, text: str, correct: bool | None) -> None:
    """Draw an image with a title above and a prediction below: green if correct, red if wrong, black if unknown."""
    show(ax, image)
    heading(ax, title)
    caption(ax, text, INK if correct is None else CORRECT if correct else WRONG)


def reliability_diagram(models: Mapping[str, Predictions], bins: int) -> Figure:
    """Draw accuracy against confidence, a panel per model, above the number of images in each bin.

    Bins with fewer than `MIN_BIN_IMAGES` images are not drawn: their accuracy is too uncertain.
    """
    figure = Figure(figsize=(4.2 * len(models), 4.8), layout="constrained")
    figure.suptitle("Reliability: accuracy by confidence")
    panels = figure.subplots(2, len(models), sharex=True, sharey="row", squeeze=False, height_ratios=(4, 1))
    middles = (np.arange(bins) + 0.5) / bins
    for (upper, lower), colour, (name, predicted) in zip(
        panels.T, itertools.cycle(COLOURS), models.items(), strict=False
    ):
        images, confidence, accuracy = reliability(predicted, bins)
        filled = images >= MIN_BIN_IMAGES
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        upper.plot(confidence[filled], accuracy[filled], marker="o", color=colour)
        upper.set_title(f"{name}: calibration error {calibration_error(predicted, bins):.1%}")
        upper.text(0.04, 0.9, "below the line:\noverconfident", color=GREY, va="top", fontsize=9)
        upper.grid(alpha=0.3)
        upper.set(xlim=(0, 1), ylim=(0, 1.02))
        lower.bar(middles, images, width=0.9 / bins, color=colour)
        lower.set_xlabel("confidence")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("images")
    return figure


def data_audit(audit: Mapping[str, Any], splits: Mapping[str, Split], classes: Sequence[str]) -> Figure:
    """Draw the number of images per class and split, and the nearest pairs of a test image and another image.

    Args:
        audit: as `fashion.data.audit.audit` returns it.
        splits: "train", "validation" and "test".
        classes: the class names.
    """
    ratio = max(1.15, 0.21 + 0.048 * len(classes))  # of the upper part's height to that of the lower; fits all bars
    size = 9.2 + max(0, widest(classes) - 1), 7.2 * (1 + ratio) / 2.15
    figure = Figure(figsize=size, layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(ratio, 1))[:, 0]
    upper.suptitle("Images per class")
    for ax, (name, counts) in zip(upper.subplots(1, 3, sharey=True), audit["images"].items(), strict=True):
        bars = ax.barh(classes, list(counts.values()), color=COLOURS[1])
        ax.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8.5)
        ax.set_title(f"{name}: {sum(counts.values()):,}")
        ax.set_xticks([])
        ax.spines["bottom"].set_visible(False)
        ax.margins(x=0.2)
    ax.invert_yaxis()
    near = audit["near_duplicates"]
    count, of = near["test_images"], near["compared"]["test_images"]
    lower.suptitle(f"Test images with a near-duplicate in another split: {count:,} of {of:,}")
    lower.supylabel("nearest          test", fontsize=10)
    axes = lower.subplots(2, max(1, len(near["closest"])), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for (above, below), pair in zip(axes.T, near["closest"], strict=False):
        other = splits[pair["split"]]
        show(above, splits["test"].images[pair["test_image"]])
        show(below, other.images[pair["image"]])
        heading(above, classes[splits["test"].labels[pair["test_image"]]])
        caption(below, f"{classes[other.labels[pair['image']]]}\n{pair['split']}\ndistance {pair['distance']:.1f}")
    return figure


def grid(
    rows: int, columns: int, cell: tuple[float, float], title: str, left: float = 0.0
) -> tuple[Figure, np.ndarray]:
    """Return a figure of empty cells and their axes.

    Args:
        rows: number of rows.
        columns: number of columns.
        cell: width and height of a cell, in inches; the image is square, and the rest of the height is for a caption.
        title: of the figure.
        left: width of the margin for row names, in inches.
    """
    width, height = left + cell[0] * columns + 0.1, 0.6 + cell[1] * rows
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.1 / height, va="top")
    caption_height = cell[1] - cell[0]
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=(left + 0.05) / width,
        right=1 - 0.05 / width,
        bottom=caption_height / height,
        top=1 - (0.6 if caption_height else 0.5) / height,
        wspace=0.08,
        hspace=caption_height / cell[0] + 0.08,
    )
    for ax in axes.flat:
        ax.axis("off")
    return figure, axes


def show(ax: Axes, image: Image) -> None:
    """Draw an image: RGB as it is, greyscale inverted (0 is white)."""
    if image.shape[-1] == 1:
        ax.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    else:
        ax.imshow(image, interpolation="nearest")


def heading(ax: Axes, text: str) -> None:
    """Add a title above an image."""
    text, size = _fitted(ax, text)
    ax.set_title(text, fontsize=size, fontweight="normal", pad=4)


def caption(ax: Axes, text: str, colour: str = INK, below: float = 0.05) -> None:
    """Add a caption under an image, at a distance of `below` times its height."""
    text, size = _fitted(ax, text)
    ax.text(0.5, -below, text, transform=ax.transAxes, ha="center", va="top", fontsize=size, color=colour)


def _fitted(ax: Axes, text: str) -> tuple[str, float]:
    """Return `text` and the largest font size, up to 8.5 points, at which it is no wider than an image and its margin.

    Lines that need less than `MIN_POINTS` are shortened.
    """
    room = 1.08 * ax.get_window_extent().width / ax.figure.dpi

    def size(text: str) -> float:
        return min(8.5, 8.5 * room / _width(text, 8.5))

    lines = text.split("\n")
    for index, line in enumerate(lines):
        for length in range(len(line) - 1, 0, -1):
            if size(lines[index]) >= MIN_POINTS:
                break
            lines[index] = f"{line[:length].rstrip()}…"
    text = "\n".join(lines)
    return text, size(text)


def widest(names: Iterable[str]) -> float:
    """Return the width in inches of the widest name, at the default font size."""
    return max(_width(name, mpl.rcParams["font.size"]) for name in names)


def _width(text: str, size: float) -> float:
    """Return the width in inches of `text` in a font of `size` points."""
    figure = Figure(dpi=72)
    FigureCanvasAgg(figure)
    return float(figure.text(0, 0, text, fontsize=size).get_window_extent().width / 72)
