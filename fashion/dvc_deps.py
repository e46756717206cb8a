"""Write the dependencies of the stages into dvc.yaml: `make deps`.

DVC tracks neither imports nor the params that a script reads.

A stage that runs `python -m MODULE` depends on

- the files in its command, except its outputs and the folders that contain them;
- its module and every module of this project that this one imports, directly or not. A file with the name of a module
  (report.html beside report.py) belongs to it. Modules with nothing but a docstring are left out, and so is the schema
  of params.yaml, as DVC tracks the values;
- for the fetch stage, only what `dataset.format` needs: the folder of images, the code that reads it and the section
  `dataset`, or the code that downloads files. A change to other code then causes no new download;
- the results of each model, if it imports `fashion.evaluation.model_results`;
- the params that its module reads: the sections that it takes from `load_params()` and, if it imports the network of a
  model (fashion/models/NAME.py), `models.NAME`. A stage that reads the params of a model also depends on `training`,
  whose keys the models inherit;
- the networks and sections of its models, if it is a study (stages/study.py), and the name of the data set.

A stage that runs trials leaves out the modules that compute nothing: a change to an error message must not call for
hours of training.

The charts and artifacts of models follow params.yaml, and dvc.lock forgets the stages of models that are gone.
"""

import ast
import itertools
import shlex
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import grimp
from dvc.utils.serialize import modify_yaml

from fashion import study
from fashion.dvc import Lock
from fashion.errors import UserError, run_command
from fashion.evaluation import model_results
from fashion.files import atomic_write
from fashion.params import FolderParams, load_params
from fashion.validation import read_yaml, yaml_editor

ROOT = Path(__file__).parents[1]
PACKAGES = ("fashion", "stages", "studies")
PIPELINES = (ROOT / "dvc.yaml", *sorted(ROOT.glob("studies/*/dvc.yaml")))
SCHEMA = {"fashion.params", "fashion.validation"}
FETCH = "stages.fetch"
STUDY = "stages.study"
RESULTS = "fashion/evaluation/model_results.py"
TRIALS = "fashion/trials.py"
COMPUTE_NOTHING = {
    *("fashion/data/__init__.py", "fashion/errors.py", "fashion/files.py", "fashion/locks.py", "fashion/parent.py"),
    *("fashion/silence.py", "fashion/stores.py", "stages/__init__.py"),
}


class SourceTree:
    """The code of the project and its models.

    Attributes:
        models: the names in params.yaml.
        folder: the folder of images that the fetch stage reads; None if it downloads files.
        unused_by_fetch: the module that the fetch stage does not use.
        known_models: `models`, and those that dvc.lock still has.
    """

    def __init__(self) -> None:
        self.imports = grimp.build_graph(*PACKAGES, cache_dir=None)
        params = load_params(ROOT / "params.yaml")
        self.models = list(params.models)
        self.folder = params.fetch.folder if isinstance(params.fetch, FolderParams) else None
        self.unused_by_fetch = "fashion.data.sources" if self.folder else "fashion.data.folder"
        locked = Lock.read(ROOT).stages if (ROOT / "dvc.lock").exists() else {}
        self.known_models = {*self.models, *(name.partition("@")[2] for name in locked)} - {""}

    def code(self, script: str) -> list[str]:
        """Return the source files of the module `script` and of all that it imports, relative to the root."""
        reached: set[str] = set()
        found = {script}
        while found:
            reached |= found
            imported = {module for name in found for module in self.imports.find_modules_directly_imported_by(name)}
            parents = {name.rsplit(".", level)[0] for name in found for level in range(1, name.count(".") + 1)}
            found = (imported | parents) - reached - SCHEMA - {self.unused_by_fetch}
        return sorted(file for name in reached for file in _files(name))

    def params(self, script: str) -> list[str]:
        """Return the sections of params.yaml that the module `script` reads."""
        tree = ast.parse(ROOT.joinpath(*script.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
        sections = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
        }
        if script == FETCH and not self.folder:
            sections.discard("dataset")
        imported = self.imports.find_modules_directly_imported_by(script)
        networks = {f"models.{name}" for name in self.models if f"fashion.models.{name}" in imported}
        shared = {"training"} if networks or "models" in sections else set()
        return sorted(sections | networks | shared)

    def declarations(self, name: str, stage: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the deps and the params that a stage of a dvc.yaml must have; nothing if it runs no module.

        Raises:
            UserError: the stage has no command, or the project has no such module.
        """
        if "cmd" not in stage:
            raise UserError(f"{name}: has no cmd")
        scripts = _scripts(stage)
        if not scripts:
            return {}
        if missing := [script for script in scripts if script not in self.imports.modules]:
            raise UserError(f"{name}: there is no module {missing[0]}; correct the command, or remove the stage")
        written = [path for key in ("outs", "metrics", "plots") for path in _paths(stage.get(key, []))]
        inputs = [
            word
            for word in _words(stage)
            if "/" in word and "=" not in word and not any(f"{path}/".startswith(f"{word}/") for path in written)
        ]
        code = {file for script in scripts for file in self.code(script)}
        params = {section for script in scripts if script != STUDY for section in self.params(script)}
        if STUDY in scripts:
            path = next((ROOT / word for word in inputs if word.endswith("params.yaml")), None)
            if path is None:
                raise UserError(f"{name}: the command of {STUDY} names no params.yaml")
            names = {str(own["model"]) for own in study.read(path, self.models).variants.values()}
            code |= {file for name in names for file in self.code(f"fashion.models.{name}")}
            params |= {"dataset.name", "training", *(f"models.{name}" for name in names)}
        if TRIALS in code:
            code -= COMPUTE_NOTHING
        if FETCH in scripts and self.folder:
            inputs.append(self.folder)
        if RESULTS in code:
            inputs += [path.replace("NAME", model) for model in self.models for path in model_results.FILES]
        of_other_files = [entry for entry in stage.get("params", []) if not isinstance(entry, str)]
        return {"deps": [*dict.fromkeys(inputs), *sorted(code)], "params": [*sorted(params), *of_other_files]}

    def for_each_model(self, paths: Mapping[str, Any]) -> dict[str, Any]:
        """Return `paths` with each entry of a model, such as reports/cnn/history.csv, repeated for every model.

        An entry belongs to a model if the second part of its path is a known model, or if its other parts equal those
        of such an entry.
        """
        split = {path: _split(path) for path in paths}
        patterns = {(folder, file) for folder, model, file in split.values() if model in self.known_models and file}
        result: dict[str, Any] = {}
        for path, value in paths.items():
            folder, _, file = split[path]
            if (folder, file) in patterns:
                result |= {f"{folder}/{name}/{file}": copy(value) for name in self.models}
            else:
                result[path] = value
        return result

    def check_models(self, stages: Mapping[str, Any]) -> None:
        """Check that a stage trains each model.

        Raises:
            UserError: a model has no network or no stage.
        """
        scripts = {
            script for entry in stages.values() for script in _scripts(entry.get("do", entry))
        } & self.imports.modules
        for name in self.models:
            network = f"fashion.models.{name}"
            if network not in self.imports.modules:
                raise UserError(f"params.yaml: models.{name}: there is no fashion/models/{name}.py")
            if not any(network in self.imports.find_modules_directly_imported_by(script) for script in scripts):
                raise UserError(f"dvc.yaml: no stage trains the model {name}: add one whose script imports {network}")


def write(*pipelines: Path) -> dict[Path, list[str]]:
    """Bring dvc.yaml files up to date: all of them, or none if one has a mistake. Comments are kept.

    Returns:
        For each file, a line for each item that was added or removed.

    Raises:
        UserError: one is not a dvc.yaml, or as for `SourceTree.declarations`.
    """
    tree = SourceTree()
    updates = {pipeline: _updated(pipeline, tree) for pipeline in pipelines}
    for pipeline, (content, lines) in updates.items():
        if lines:
            with atomic_write(pipeline) as file:
                yaml_editor().dump(content, file)
    return {pipeline: lines for pipeline, (_, lines) in updates.items()}


def _updated(pipeline: Path, tree: SourceTree) -> tuple[Any, list[str]]:
    """Return the new content of a dvc.yaml, and a line for each item that was added or removed."""
    if not isinstance((values := read_yaml(pipeline)), dict) or not isinstance(values.get("stages"), dict):
        raise UserError(f"{pipeline}: expected a mapping with the key stages")
    content, lines = yaml_editor().load(pipeline), []
    for name, entry in content["stages"].items():
        stage = entry.get("do", entry)  # of a foreach stage
        for key, needed in reversed(tree.declarations(f"{pipeline}: {name}", stage).items()):
            declared = stage.get(key, [])
            lines += _differences(f"{name}: {key}: ", declared, needed)
            if not needed:
                stage.pop(key, None)
            elif key in stage:
                stage[key] = needed
            else:
                stage.insert(list(stage).index("cmd") + 1, key, needed)
    charts = (chart for entry in content.get("plots", []) if isinstance(entry, dict) for chart in entry.items())
    for title, chart in charts:
        if isinstance(chart, dict) and isinstance(chart.get("y"), dict):
            lines += _replace(f"plots: {title}: ", chart["y"], tree.for_each_model(chart["y"]))
    artifacts = content.get("artifacts", {})
    names = {artifact["path"]: name for name, artifact in artifacts.items()}
    needed_artifacts = tree.for_each_model({artifact["path"]: artifact for artifact in artifacts.values()})
    lines += _replace(
        "artifacts: ",
        artifacts,
        {names.get(path, _split(path)[1]): {**artifact, "path": path} for path, artifact in needed_artifacts.items()},
    )
    return content, lines


def stale_lock_entries(pipeline: Path) -> list[str]:
    """Return the stages in the dvc.lock beside a dvc.yaml that it no longer has."""
    lock = pipeline.with_suffix(".lock")
    if not lock.exists():
        return []
    stages, models = read_yaml(pipeline)["stages"], load_params(ROOT / "params.yaml").models
    of_models = {name for name, entry in stages.items() if entry.get("foreach") == "${models}"}
    split = {name: name.partition("@") for name in read_yaml(lock)["stages"]}
    return [
        name
        for name, (base, _, model) in split.items()
        if base not in stages or (base in of_models and model not in models)
    ]


def _differences(prefix: str, old: Any, new: Any) -> list[str]:
    return [f"{prefix}added {item}" for item in new if item not in old] + [
        f"{prefix}removed {item}" for item in old if item not in new
    ]


def _replace(prefix: str, entries: Any, needed: Mapping[str, Any]) -> list[str]:
    """Give a mapping the keys of another, keeping its own values; return a line for each key added or removed."""
    lines = _differences(prefix, entries, needed)
    for key in [key for key in entries if key not in needed]:
        del entries[key]
    for key in needed:
        entries.setdefault(key, needed[key])
    return lines


def _split(path: str) -> tuple[str, str, str]:
    """Return the folder, the second part and the rest of a path, such as reports, cnn, history.csv."""
    folder, _, rest = path.partition("/")
    name, _, file = rest.partition("/")
    return folder, name, file


def _words(stage: Mapping[str, Any]) -> list[str]:
    """Return the words of a stage's commands."""
    commands = stage.get("cmd", [])
    return [word for cmd in ([commands] if isinstance(commands, str) else commands) for word in shlex.split(cmd)]


def _scripts(stage: Mapping[str, Any]) -> list[str]:
    """Return the modules of this project that a stage runs with `python -m`."""
    modules = [module for option, module in itertools.pairwise(_words(stage)) if option == "-m"]
    return [module for module in modules if module.partition(".")[0] in PACKAGES]


def _paths(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        yield entry if isinstance(entry, str) else next(iter(entry))


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


def main() -> None:
    """Bring every dvc.yaml and the root's dvc.lock up to date, and print what changed."""
    SourceTree().check_models(read_yaml(ROOT / "dvc.yaml")["stages"])
    for pipeline, lines in write(*PIPELINES).items():
        for line in lines:
            print(f"{pipeline.relative_to(ROOT)}: {line}")
    if removed := stale_lock_entries(ROOT / "dvc.yaml"):
        with modify_yaml(ROOT / "dvc.lock") as lock:
            for name in removed:
                del lock["stages"][name]
                print(f"dvc.lock: removed {name}")


if __name__ == "__main__":
    run_command(main)
