"""The picture of a model's answers."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fashion.evaluation import figures
from fashion.serving.predicting import Prediction

COLUMNS = 6
TITLE = 22  # characters that fit above a picture


def draw(predictions: Sequence[Prediction]) -> Figure:
    """Draw what the model saw of each of at least one picture, the label and confidence, and where known the actual."""
    columns = min(COLUMNS, len(predictions))
    figure, axes = figures.grid(-(-len(predictions) // columns), columns, cell=(1.7, 2.4), title="")
    for ax, prediction in zip(axes.flat, predictions, strict=False):
        label, confidence = prediction.ranking[0]
        actual = prediction.actual
        name = Path(prediction.picture.name).stem
        title = (name if len(name) <= TITLE else f"{name[: TITLE - 1]}…") if actual is None else f"actual: {actual}"
        sure = "predicted" if prediction.familiar else "not sure"
        text = f"{sure}: {label}\nconfidence {confidence:.1%}"
        figures.prediction(ax, prediction.picture.seen, title, text, None if actual is None else label == actual)
    return figure
