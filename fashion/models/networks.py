"""The networks: fashion/models/NAME.py for each section models.NAME of params.yaml."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from fashion.errors import UserError
from fashion.params import Params, TrainingParams
from fashion.validation import merged, raise_problems, validated


def load(name: str) -> ModuleType:
    """Return the module of a network.

    Raises:
        UserError: there is no such module, it cannot be imported, or it lacks `Params` or `build`.
    """
    file = f"fashion/models/{name}.py"
    if not Path(__file__).with_name(f"{name}.py").exists():
        raise UserError(f"params.yaml: models.{name}: there is no {file}; write it, or remove the section")
    try:
        module = importlib.import_module(f"fashion.models.{name}")
    except (ImportError, SyntaxError) as error:
        raise UserError(f"{file} cannot be imported: {error}") from error
    if not (hasattr(module, "Params") and hasattr(module, "build")):
        raise UserError(f"params.yaml: models.{name}: {file} must define Params and build")
    return module


def params_of(name: str, params: Params, changes: Mapping[str, Any] | None = None) -> TrainingParams:
    """Return the checked params of a network.

    Args:
        name: of the network.
        params: the whole of params.yaml.
        changes: values that override those of params.yaml; a nested section takes a mapping.

    Raises:
        UserError: as for `load`, or one line per key that is unknown, missing, of the wrong type or out of bounds.
    """
    if name not in params.models:
        raise UserError(f"params.yaml has no section models.{name}; it has {', '.join(params.models)}")
    values = merged(params.models[name], changes or {})
    params_of_network: TrainingParams = validated(
        load(name).Params, values, f"params.yaml: models.{name}", separator="."
    )
    return params_of_network


def check(params: Params, image_shape: tuple[int, int, int] | None = None) -> None:
    """Check the params of all networks, so that a mistake is reported before the first of them is trained.

    Args:
        params: the whole of params.yaml.
        image_shape: height, width and number of channels of the images, if they are known.

    Raises:
        UserError: one line per key that is wrong or does not fit the images.
    """
    problems = []
    for name in params.models:
        try:
            model = params_of(name, params)
        except UserError as error:
            problems.append(str(error))
            continue
        if image_shape:
            problems += [f"params.yaml: models.{name}.{line}" for line in model.image_problems(image_shape)]
    raise_problems(problems)
