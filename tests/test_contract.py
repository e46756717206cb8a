"""dvc.yaml declares what the code does, dvc.lock belongs to the code, and params.yaml holds nothing idle."""

import ast
import hashlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from fashion import contract
from fashion.params import Params
from tests.conftest import ROOT

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES: dict[str, Any] = PIPELINE["stages"]


def paths(entries: list[Any]) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def outputs(stage: dict[str, Any]) -> set[str]:
    return set().union(*(paths(stage.get(key, [])) for key in ("outs", "metrics", "plots")))


def test_code_and_params_are_declared() -> None:
    assert contract.problems(ROOT) == [], "run `make deps`"


def test_an_undeclared_import_and_an_idle_param_are_told_and_mended(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "stages", "fashion"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").unlink()
    broken = text.replace("      - fashion/models/cnn.py\n", "").replace("      - dnn\n", "      - dnn\n      - cnn\n")
    (tmp_path / "dvc.yaml").write_text(broken)
    assert contract.problems(tmp_path) == [
        "dvc.yaml: train_dnn: params: remove cnn",
        "dvc.yaml: train_cnn: deps: add fashion/models/cnn.py",
    ]
    contract.write(tmp_path)
    assert (tmp_path / "dvc.yaml").read_text() == text


@pytest.mark.parametrize("name", STAGES)
def test_the_command_names_exactly_the_data_read_and_written(name: str) -> None:
    stage = STAGES[name]
    named = {word for word in shlex.split(stage["cmd"]) if "/" in word}
    data = {dep for dep in stage["deps"] if not dep.startswith(("fashion/", "stages/"))}
    assert named == data | outputs(stage)


def test_only_evaluation_and_pictures_read_the_test_images() -> None:
    readers = {name for name, stage in STAGES.items() if "data/test.npz" in stage["deps"]}
    assert readers == {"evaluate", "plot"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_takes_params_by_section_only(name: str) -> None:
    """Params handed on as a whole would be read out of the contract's sight."""
    tree = ast.parse((ROOT / "stages" / f"{name}.py").read_text())
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "params"]
    sections = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.value in uses]
    assignments = [node for node in uses if isinstance(node.ctx, ast.Store)]
    assert len(uses) == len(sections) + len(assignments)


def test_only_stages_read_params() -> None:
    callers = [
        path
        for path in (ROOT / "fashion").rglob("*.py")
        if "= load_params(" in path.read_text() or "def load_params(" in path.read_text()
    ]
    assert callers == [ROOT / "fashion" / "params.py"]


def keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation)


def test_every_param_is_used() -> None:
    read: set[str] = set()
    for name in STAGES:
        for file in contract.Contract(ROOT).code(name):
            if file.endswith(".py"):
                tree = ast.parse((ROOT / file).read_text())
                read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    by_key_of_a_mapping = set(keys(Params.model_fields["fetch"].annotation.model_fields["files"].annotation))  # type: ignore[union-attr]
    assert set(keys(Params)) - read - by_key_of_a_mapping == set()


def locked_stages() -> dict[str, Any]:
    locked: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    return locked


def test_lock_holds_the_code_as_it_is() -> None:
    stale = {
        f"{name}: {dep['path']}"
        for name, stage in locked_stages().items()
        for dep in stage["deps"]
        if dep["path"].startswith(("fashion/", "stages/"))
        and hashlib.md5((ROOT / dep["path"]).read_bytes(), usedforsecurity=False).hexdigest() != dep["md5"]
    }
    assert stale == set(), "run `dvc repro` and commit dvc.lock with the reports"


def test_lock_holds_the_params_and_the_shape_of_the_pipeline_as_they_are() -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    locked = locked_stages()
    for name, stage in STAGES.items():
        for model in stage.get("matrix", {"model": [""]})["model"]:
            full_name = f"{name}@{model}" if model else name
            entry = locked.pop(full_name)
            assert entry["params"]["params.yaml"] == {key: params[key] for key in stage["params"]}, full_name

            def filled(text: str, model: str = model) -> str:
                return text.replace("${item.model}", model)

            assert entry["cmd"] == filled(stage["cmd"]), full_name
            assert {dep["path"] for dep in entry["deps"]} == {filled(dep) for dep in stage["deps"]}, full_name
            assert {out["path"] for out in entry["outs"]} == {filled(out) for out in outputs(stage)}, full_name
    assert locked == {}, "stages in dvc.lock that dvc.yaml does not have"
