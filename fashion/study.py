"""Studies: training runs with several seeds and settings, as the params.yaml of a study declares them."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict

from fashion.params import Seed
from fashion.validation import Name, StrictModel, merged, raise_problems, read_yaml, validated


class Study(StrictModel):
    """The params.yaml of a study.

    Attributes:
        seeds: of each variant.
        all: what every variant changes of its model's params.
        variants: what each variant changes, too, by its name; the key `model` names the model.
    """

    seeds: Annotated[tuple[Seed, ...], Strict(False), Field(min_length=1)]
    all: dict[str, Any]
    variants: dict[Name, dict[str, Any]]


def read(path: Path, models: Collection[str]) -> Study:
    """Read the params.yaml of a study.

    Args:
        path: of the file. Its variants need not be there: then each model is one.
        models: names of the project's models.

    Returns:
        The study, each of whose variants has a key `model` and all changes, those of `all` included.

    Raises:
        UserError: a line per key that is unknown, missing or of the wrong type, and per variant without a model or with
            a seed.
    """
    study = validated(Study, read_yaml(path), str(path))
    variants = study.variants or {model: {"model": model} for model in models}
    changes = {name: merged(study.all, own) for name, own in variants.items()}
    raise_problems(
        f"{path}: variants.{name}: model: found {own.get('model')!r}, expected one of {', '.join(models)}"
        for name, own in changes.items()
        if own.get("model") not in list(models)  # what is no text may be unhashable
    )
    raise_problems(
        f"{path}: variants.{name}: seed: found {own['seed']!r}; list the seeds of all variants under seeds"
        for name, own in changes.items()
        if "seed" in own
    )
    return study.model_copy(update={"variants": changes})
