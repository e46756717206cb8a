"""Studies: training runs with several seeds and settings, as the params.yaml of a study declares them."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, Strict

from fashion.params import Seed
from fashion.validation import Name, StrictModel, merged, raise_problems, read_yaml, validated


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("should list each seed once")
    return seeds


Seeds = Annotated[tuple[Seed, ...], Strict(False), Field(min_length=1), AfterValidator(_different)]


class Study(StrictModel):
    """The params.yaml of a study.

    Attributes:
        seeds: seeds for each variant.
        all: overrides for every variant.
        variants: further overrides, by the variant's name; `model` selects the model.
    """

    seeds: Seeds
    all: dict[str, Any]
    variants: dict[Name, dict[str, Any]]


def read(path: Path, models: Collection[str]) -> Study:
    """Read the params.yaml of a study.

    Args:
        path: the file. If its `variants` are empty, each model is a variant, or that of `all` is the only one.
        models: names of the project's models.

    Returns:
        The study, with `all` merged into each variant.

    Raises:
        UserError: a key is unknown, missing or of the wrong type, or a variant has no model or a seed (one line each).
    """
    study = validated(Study, read_yaml(path), str(path))
    each = [study.all["model"]] if "model" in study.all else models
    variants = study.variants or {str(model): {"model": model} for model in each}
    changes = {name: merged(study.all, own) for name, own in variants.items()}
    raise_problems(
        f"{path}: variants.{name}: model: found {own.get('model')!r}, expected one of {', '.join(models)}"
        for name, own in changes.items()
        if own.get("model") not in list(models)  # a non-string may be unhashable
    )
    raise_problems(
        f"{path}: {place}: seed: found {own['seed']!r}; list the seeds of all variants under seeds"
        for place, own in {"all": study.all, **{f"variants.{name}": own for name, own in variants.items()}}.items()
        if "seed" in own
    )
    return study.model_copy(update={"variants": changes})
