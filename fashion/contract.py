"""What each stage of dvc.yaml must declare, read off the code: DVC sees neither imports nor the use of params.

`python -m fashion.contract` writes the code dependencies and the params of every stage into dvc.yaml; `problems` says
which lines it would add or remove.

A stage's code is its script and every first-party module that the script imports, directly or not, with two
exceptions: a module that holds nothing but a docstring, and fashion/params.py, whose values all come from params.yaml.
A file that bears a module's name (report.html beside report.py) belongs to that module. A stage's params are the
sections that its script takes from `load_params()`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
from ruamel.yaml import YAML

PACKAGES = ("fashion", "stages")
NOT_TRACKED = "fashion.params"


class Contract:
    """The code and the params of each stage, as found in the source tree under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.imports = grimp.build_graph(*PACKAGES, cache_dir=None)

    def code(self, stage: str) -> list[str]:
        """Return the source files that the script of `stage` reaches, itself included, relative to the root."""
        module = f"stages.{stage}"
        reached = {module, *self.imports.find_upstream_modules(module)} - {NOT_TRACKED}
        reached |= {parent for name in reached for parent in _parents(name)}
        return sorted(file for name in reached for file in self._files(name))

    def params(self, stage: str) -> list[str]:
        """Return the sections of params.yaml that the script of `stage` reads."""
        tree = ast.parse((self.root / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
        return sorted(
            {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
            }
        )

    def _files(self, module: str) -> Iterator[str]:
        path = self.root / Path(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if _has_code(source):
            yield from (str(file.relative_to(self.root)) for file in source.parent.glob(f"{source.stem}.*"))


def problems(root: Path) -> list[str]:
    """Return a line for each code dependency or param that dvc.yaml lacks or has without need."""
    contract = Contract(root)
    lines = []
    for name, stage in _read(root)["stages"].items():
        for key, declared, found in (
            ("deps", [dep for dep in stage["deps"] if _is_code(dep)], contract.code(name)),
            ("params", stage["params"], contract.params(name)),
        ):
            lines += [f"dvc.yaml: {name}: {key}: add {item}" for item in sorted(set(found) - set(declared))]
            lines += [f"dvc.yaml: {name}: {key}: remove {item}" for item in sorted(set(declared) - set(found))]
    return lines


def write(root: Path) -> None:
    """Write the code dependencies and the params of every stage into dvc.yaml; keep all else, comments included."""
    contract = Contract(root)
    pipeline = _read(root)
    for name, stage in pipeline["stages"].items():
        data = [dep for dep in stage["deps"] if not _is_code(dep)]
        stage["deps"] = [*data, *contract.code(name)]
        stage["params"] = contract.params(name)
    with (root / "dvc.yaml").open("w", encoding="utf-8") as file:
        _yaml().dump(pipeline, file)


def _read(root: Path) -> Any:
    return _yaml().load((root / "dvc.yaml").read_text(encoding="utf-8"))


def _yaml() -> YAML:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    return yaml


def _is_code(dependency: str) -> bool:
    return dependency.startswith(tuple(f"{package}/" for package in PACKAGES))


def _parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _has_code(source: Path) -> bool:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return len(tree.body) > (ast.get_docstring(tree) is not None)


if __name__ == "__main__":
    write(Path())
