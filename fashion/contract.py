"""What each stage of a dvc.yaml must declare, read off its command and its code: DVC sees neither imports nor params.

For developers, with the dev extra installed: `python -m fashion.contract` writes the dependencies and the params of
every stage into dvc.yaml, that of each study too; `problems` says which lines it would add or remove.

A stage depends on the data and on the code that it reads. Its data are the paths in its command that are not among its
outputs. Its code is its script (the module after `python -m`) and every first-party module that the script imports,
directly or not, with two exceptions: a module that holds nothing but a docstring, and fashion/params.py, whose values
all come from params.yaml. A file that bears a module's name (report.html beside report.py) belongs to that module. A
stage's params are the sections that its script takes from `load_params()`.
"""

import ast
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grimp
from ruamel.yaml import YAML

from fashion.files import atomic_write

ROOT = Path(__file__).parents[1]
PACKAGES = ("fashion", "stages", "studies")
PIPELINES = (ROOT / "dvc.yaml", *sorted(ROOT.glob("studies/*/dvc.yaml")))
SCHEMA = "fashion.params"


class Contract:
    """The code and the params of each stage, as found in the source tree that this module is part of."""

    def __init__(self) -> None:
        self.imports = grimp.build_graph(*PACKAGES, cache_dir=None)

    def code(self, script: str) -> list[str]:
        """Return the source files that the module `script` reaches, itself included, relative to the root."""
        reached: set[str] = set()
        found = {script}
        while found:
            reached |= found
            imported = {module for name in found for module in self.imports.find_modules_directly_imported_by(name)}
            found = (imported | {parent for name in found for parent in _parents(name)}) - reached - {SCHEMA}
        return sorted(file for name in reached for file in _files(name))

    def params(self, script: str) -> list[str]:
        """Return the sections of params.yaml that the module `script` reads."""
        tree = ast.parse(ROOT.joinpath(*script.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
        return sorted(
            {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
            }
        )

    def declarations(self, stage: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return what a stage of a dvc.yaml must have as its deps and its params."""
        written = {path for key in ("outs", "metrics", "plots") for path in _paths(stage.get(key, []))}
        data = [word for word in shlex.split(stage["cmd"]) if "/" in word and word not in written]
        script = script_of(stage)
        of_other_files = [entry for entry in stage.get("params", []) if not isinstance(entry, str)]
        return {"deps": [*data, *self.code(script)], "params": [*self.params(script), *of_other_files]}


def script_of(stage: Mapping[str, Any]) -> str:
    """Return the module that a stage of a dvc.yaml runs."""
    words = shlex.split(stage["cmd"])
    return words[words.index("-m") + 1]


def problems(pipeline: Path) -> list[str]:
    """Return a line for each dependency or param that the dvc.yaml at `pipeline` lacks or has without need."""
    contract = Contract()
    lines = []
    for name, stage in _yaml().load(pipeline)["stages"].items():
        for key, needed in contract.declarations(stage).items():
            declared = stage.get(key, [])
            lines += [f"dvc.yaml: {name}: {key}: add {item}" for item in needed if item not in declared]
            lines += [f"dvc.yaml: {name}: {key}: remove {item}" for item in declared if item not in needed]
    return lines


def write(pipeline: Path) -> None:
    """Write the dependencies and the params of every stage into dvc.yaml; keep all else, comments included."""
    contract = Contract()
    content = _yaml().load(pipeline)
    for stage in content["stages"].values():
        for key, needed in reversed(contract.declarations(stage).items()):
            if not needed:
                stage.pop(key, None)
            elif key in stage:
                stage[key] = needed
            else:
                stage.insert(list(stage).index("cmd") + 1, key, needed)
    with atomic_write(pipeline) as file:
        _yaml().dump(content, file)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1000  # fold no command
    return yaml


def _paths(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        yield entry if isinstance(entry, str) else next(iter(entry))


def _parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _files(module: str) -> Iterator[str]:
    path = ROOT / Path(*module.split("."))
    single = path.with_suffix(".py")  # a folder of data may bear its name
    source = single if single.exists() else path / "__init__.py"
    if _has_code(source):
        belonging = (source.with_suffix(suffix) for suffix in (".py", ".html", ".md"))
        yield from (str(file.relative_to(ROOT)) for file in belonging if file.exists())


def _has_code(source: Path) -> bool:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return len(tree.body) > (ast.get_docstring(tree) is not None)


if __name__ == "__main__":
    for pipeline in PIPELINES:
        write(pipeline)
