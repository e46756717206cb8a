"""The networks: fashion/models/NAME.py for each section models.NAME of params.yaml."""

import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import version
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


def training_key(name: str, settings: TrainingParams, data: Mapping[str, Mapping[str, str]]) -> str:
    """Return a hash, 32 hexadecimal digits, of what the result of a training run depends on.

    Args:
        name: of the network.
        settings: all its params.
        data: the MD5 of each file of the splits.

    It depends on these, on the versions of TensorFlow and Keras, and on the code of fashion/data/dataset.py and of
    fashion/models, without the other networks unless this one mentions them.
    """
    folder = Path(__file__).parent
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    code = {
        file: text
        for file, text in texts.items()
        if "\nclass Params(" not in text or file == name or re.search(rf"\b{file}\b", texts[name])
    }
    code["dataset"] = folder.parent.joinpath("data", "dataset.py").read_text(encoding="utf-8")
    versions = [version(package) for package in ("tensorflow", "keras")]
    content = json.dumps([name, settings.model_dump(mode="json"), data, code, versions])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


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
