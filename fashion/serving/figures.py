"""The figure of `fashion predict`."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fashion.evaluation import figures
from fashion.serving.predict import Prediction

COLUMNS = 6
TITLE_LENGTH = 22  # characters that fit above an image


def prediction_grid(predictions: Sequence[Prediction]) -> Figure:
    """Draw the model input of each of at least one prediction, with its label, confidence and actual class if known."""
    columns = min(COLUMNS, len(predictions))
    figure, axes = figures.grid(-(-len(predictions) // columns), columns, cell=(1.7, 2.4), title="")
    for ax, prediction in zip(axes.flat, predictions, strict=False):
        label, confidence = prediction.ranking[0]
        if prediction.actual is None:
            name = Path(prediction.image.name).stem
            title = name if len(name) <= TITLE_LENGTH else f"{name[: TITLE_LENGTH - 1]}…"
            correct = None
        else:
            title, correct = f"actual: {prediction.actual}", label == prediction.actual
        note = "predicted" if prediction.in_distribution else "out of distribution"
        caption = f"{note}: {label}\nconfidence {confidence:.1%}"
        figures.prediction(ax, prediction.image.pixels, title, caption, correct)
    return figure
