"""The model card: what a person must know of the exported models before using them, as the Hugging Face hub reads it.

Format: M. Mitchell et al., Model cards for model reporting, FAT* 2019, and https://huggingface.co/docs/hub/model-cards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from jaxtyping import Int64

from fashion.evaluation.markdown import escape
from fashion.evaluation.metrics import Labels, Probabilities, confusion_matrix, wilson_interval

SHOWN_MISTAKES = 5
UNSURE = (0.7, 0.95)  # confidences between which a model is neither sure nor at a loss

Confusion = Int64[np.ndarray, "classes classes"]


@dataclass(frozen=True)
class Exported:
    """What the pipeline recorded of one exported model.

    Attributes:
        parameters: how many numbers it has, learned or computed from the training images.
        recipe: the params that it was trained with.
        metrics: as the export stage writes them.
        probabilities: of each class, for each test image, calibrated.
    """

    parameters: int
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    probabilities: Probabilities


def card(
    name: str, classes: tuple[str, ...], audit: Mapping[str, Any], labels: Labels, models: Mapping[str, Exported]
) -> str:
    """Return the card as Markdown with a YAML header.

    Args:
        name: of the data set.
        classes: their names.
        audit: of the data, as the preprocess stage writes it.
        labels: the actual class of each test image.
        models: what it describes, by name.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, of our own numbers and names
    )
    environment.filters["yaml"] = lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    environment.filters["md"] = escape
    template = environment.from_string(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    matrices = {model: confusion_matrix(found.probabilities, labels) for model, found in models.items()}
    return template.render(
        name=name,
        classes=classes,
        audit=audit,
        images={split: sum(counts.values()) for split, counts in audit["images"].items()},
        models=models,
        by_class={model: _by_class(matrix, classes) for model, matrix in matrices.items()},
        mistakes={model: _mistakes(matrix, classes) for model, matrix in matrices.items()},
        unsure=UNSURE,
        honesty={model: _honesty(found.probabilities, labels) for model, found in models.items()},
        share=_share,
    )


def _share(successes: int, trials: int) -> str:
    """Return a proportion with its 95 % interval."""
    if not trials:
        return "-"
    low, high = wilson_interval(successes, trials)
    return f"{successes / trials:.1%} ({low:.1%} to {high:.1%})"


def _honesty(probabilities: Probabilities, labels: Labels) -> tuple[int, float, int]:
    """Return of how many images a model is `UNSURE`, how sure on average, and for how many of them it is right."""
    confidences = probabilities.max(axis=1)
    chosen = (confidences >= UNSURE[0]) & (confidences < UNSURE[1])
    right = probabilities.argmax(axis=1) == labels
    return int(chosen.sum()), float(confidences[chosen].mean()) if chosen.any() else 0.0, int(right[chosen].sum())


def _by_class(matrix: Confusion, classes: tuple[str, ...]) -> list[tuple[str, int, int, int]]:
    """Return of each class its name, and how many images were rightly called so, are of it, and were called so."""
    columns = (counts.tolist() for counts in (np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)))
    return list(zip(classes, *columns, strict=True))


def _mistakes(matrix: Confusion, classes: tuple[str, ...]) -> list[tuple[str, str, int, int]]:
    """Return the most frequent mistakes: the actual class, the predicted one, how often, of how many images."""
    pairs = [
        (classes[actual], classes[predicted], int(count), int(matrix[actual].sum()))
        for (actual, predicted), count in np.ndenumerate(matrix)
        if count and actual != predicted
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:SHOWN_MISTAKES]
