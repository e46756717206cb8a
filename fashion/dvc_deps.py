"""Write what the stages depend on into dvc.yaml: `make deps`. DVC sees neither imports nor which params a script reads.

A stage depends on

- the files in its command that it does not write (an argument that is a folder of outputs is written, too);
- with `meta.per_model`, those files of each model in params.yaml, with NAME replaced by the model's name;
- its script (the module after `python -m`) and every module of this project that the script imports, directly or not.
  A file with the name of a module (report.html beside report.py) belongs to it. Modules with nothing but a docstring,
  and the schema of params.yaml, whose values all come from params.yaml, are left out;
- the params that its script reads: the sections that it takes from `load_params()` and, if it imports the network of a
  model (fashion/models/NAME.py), `models.NAME`; with any of the models, `training` too, whose keys they inherit.

The models in the top-level charts and artifacts follow params.yaml, and dvc.lock forgets stages that are gone.
"""

import ast
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grimp
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from fashion.files import atomic_write
from fashion.validation import read_yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("fashion", "stages", "studies")
PIPELINES = (ROOT / "dvc.yaml", *sorted(ROOT.glob("studies/*/dvc.yaml")))
SCHEMA = {"fashion.params", "fashion.validation"}


class SourceTree:
    """The code of a project and the models in its params.yaml."""

    def __init__(self) -> None:
        self.imports = grimp.build_graph(*PACKAGES, cache_dir=None)
        self.models = list(read_yaml(ROOT / "params.yaml")["models"])

    def code(self, script: str) -> list[str]:
        """Return the source files that the module `script` imports and its own, relative to the root."""
        reached: set[str] = set()
        found = {script}
        while found:
            reached |= found
            imported = {module for name in found for module in self.imports.find_modules_directly_imported_by(name)}
            found = (imported | {parent for name in found for parent in _parents(name)}) - reached - SCHEMA
        return sorted(file for name in reached for file in _files(name))

    def params(self, script: str) -> list[str]:
        """Return the sections of params.yaml that the module `script` reads."""
        tree = ast.parse(ROOT.joinpath(*script.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
        sections = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
        }
        imported = self.imports.find_modules_directly_imported_by(script)
        networks = {f"models.{name}" for name in self.models if f"fashion.models.{name}" in imported}
        shared = {"training"} if networks or "models" in sections else set()  # `models` has the keys of `training`
        return sorted(sections | networks | shared)

    def per_model(self, paths: list[str]) -> list[str]:
        """Return paths of each model, with NAME replaced by the model's name."""
        return [path.replace("NAME", model) for model in self.models for path in paths]

    def declarations(self, stage: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the deps and the params that a stage of a dvc.yaml must have."""
        written = [path for key in ("outs", "metrics", "plots") for path in _paths(stage.get(key, []))]
        inputs = [
            word
            for word in shlex.split(stage["cmd"])
            if "/" in word and "=" not in word and not any(f"{path}/".startswith(f"{word}/") for path in written)
        ]
        inputs += self.per_model(stage.get("meta", {}).get("per_model", []))
        words = shlex.split(stage["cmd"])
        script = words[words.index("-m") + 1]
        of_other_files = [entry for entry in stage.get("params", []) if not isinstance(entry, str)]
        return {"deps": [*inputs, *self.code(script)], "params": [*self.params(script), *of_other_files]}


def write(pipeline: Path) -> list[str]:
    """Bring the dvc.yaml at `pipeline` up to date, keeping comments.

    Returns:
        A line for each item that was added or removed.
    """
    tree, lines = SourceTree(), []
    content = _yaml().load(pipeline)
    for name, entry in content["stages"].items():
        stage = entry.get("do", entry)  # of a foreach stage
        for key, needed in reversed(tree.declarations(stage).items()):
            declared = stage.get(key, [])
            lines += [f"{name}: {key}: added {item}" for item in needed if item not in declared]
            lines += [f"{name}: {key}: removed {item}" for item in declared if item not in needed]
            if not needed:
                stage.pop(key, None)
            elif key in stage:
                stage[key] = needed
            else:
                stage.insert(list(stage).index("cmd") + 1, key, needed)
    for chart in (chart for entry in content.get("plots", []) for chart in entry.values()):
        path, columns = next(iter(chart["y"].items()))
        lines += _replace_models(chart["y"], dict.fromkeys(tree.per_model([_pattern(path)]), columns))
    if "artifacts" in content:
        _, artifact = next(iter(content["artifacts"].items()))
        pattern = _pattern(artifact["path"])
        models = {name: {**artifact, "path": pattern.replace("NAME", name)} for name in tree.models}
        lines += _replace_models(content["artifacts"], models)
    if lines:
        with atomic_write(pipeline) as file:
            _yaml().dump(content, file)
    return lines


def prune_lock(pipeline: Path) -> list[str]:
    """Remove from the dvc.lock beside a dvc.yaml the stages of models that are no longer in params.yaml.

    Returns:
        A line for each stage that was removed.
    """
    stages, models = _yaml().load(pipeline)["stages"], SourceTree().models
    names = {name for name, entry in stages.items() if "foreach" not in entry}
    names |= {f"{name}@{model}" for name, entry in stages.items() if "foreach" in entry for model in models}
    with modify_yaml(pipeline.with_suffix(".lock")) as lock:
        removed = [name for name in lock["stages"] if name not in names]
        for name in removed:
            del lock["stages"][name]
    return [f"dvc.lock: removed {name}" for name in removed]


def _pattern(path: str) -> str:
    """Return a path of a model, such as reports/cnn/history.csv, with NAME in place of the model's name."""
    folder, _, *rest = path.split("/")
    return "/".join([folder, "NAME", *rest])


def _replace_models(entries: Any, needed: Mapping[str, Any]) -> list[str]:
    """Replace a mapping by another in place; return a line for each key that was added or removed."""
    removed, added = [key for key in entries if key not in needed], [key for key in needed if key not in entries]
    for key in removed:
        del entries[key]
    for key in added:
        entries[key] = needed[key]
    return [f"added {key}" for key in added] + [f"removed {key}" for key in removed]


def _yaml() -> YAML:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1000  # no line breaks in commands
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
    single = path.with_suffix(".py")  # a folder of data may have the same name
    source = single if single.exists() else path / "__init__.py"
    if _has_code(source):
        belonging = (source.with_suffix(suffix) for suffix in (".py", ".html", ".md"))
        yield from (str(file.relative_to(ROOT)) for file in belonging if file.exists())


def _has_code(source: Path) -> bool:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return len(tree.body) > (ast.get_docstring(tree) is not None)


if __name__ == "__main__":
    for pipeline in PIPELINES:
        for line in write(pipeline):
            print(f"{pipeline.relative_to(ROOT)}: {line}")
    for line in prune_lock(ROOT / "dvc.yaml") if (ROOT / "dvc.lock").exists() else []:
        print(line)
