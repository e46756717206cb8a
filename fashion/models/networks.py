"""The networks: fashion/models/NAME.py for each section models.NAME of params.yaml."""

import ast
import hashlib
import importlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf

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
        UserError: as for `load`, or one line per key that is unknown, missing, of the wrong type or out of bounds; the
            line names params.yaml if there are no `changes`.
    """
    if name not in params.models:
        raise UserError(f"params.yaml has no section models.{name}; it has {', '.join(params.models)}")
    values = merged(params.models[name], changes or {})
    place = f"models.{name}" if changes else f"params.yaml: models.{name}"
    params_of_network: TrainingParams = validated(load(name).Params, values, place, separator=".")
    return params_of_network


def training_key(name: str, settings: TrainingParams, data: Mapping[str, Mapping[str, str]], *others: Any) -> str:
    """Return a hash, 32 hexadecimal digits, of what the result of a training run depends on.

    Besides the arguments, it depends on the versions of TensorFlow and Keras and on the code of fashion/data/dataset.py
    and fashion/models, without the networks that are not imported.

    Args:
        name: name of the network.
        settings: all its params.
        data: the MD5 of each file of the splits.
        others: whatever else the result depends on, as JSON can express it.
    """
    folder = Path(__file__).parent
    code = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    unused = {file for file, text in code.items() if "\nclass Params(" in text and file != name}
    while imported := unused & _imported(code[file] for file in code.keys() - unused):
        unused -= imported
    code = {file: text for file, text in code.items() if file not in unused}
    code["dataset"] = folder.parent.joinpath("data", "dataset.py").read_text(encoding="utf-8")
    versions = [tf.__version__, keras.__version__]
    content = json.dumps([name, settings.model_dump(mode="json"), data, code, versions, others])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _imported(texts: Iterable[str]) -> set[str]:
    """Return all parts of the names in the import statements of source files."""
    statements = [node for text in texts for node in ast.walk(ast.parse(text))]
    names = [alias.name for node in statements if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    modules = [node.module or "" for node in statements if isinstance(node, ast.ImportFrom)]
    return {part for name in names + modules for part in name.split(".")}


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
