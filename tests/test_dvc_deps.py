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

from fashion import dvc_deps
from fashion.params import Params
from tests.conftest import ROOT

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES: dict[str, Any] = PIPELINE["stages"]
CONTRACT = dvc_deps.Contract()


def paths(entries: list[Any]) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def outputs(stage: dict[str, Any]) -> set[str]:
    return set().union(*(paths(stage.get(key, [])) for key in ("outs", "metrics", "plots")))


@pytest.mark.parametrize("pipeline", dvc_deps.PIPELINES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_code_and_params_are_declared(pipeline: Path) -> None:
    assert dvc_deps.problems(pipeline) == [], "run `make deps`"


def test_what_is_undeclared_or_idle_is_told_and_mended(tmp_path: Path) -> None:
    text = (ROOT / "dvc.yaml").read_text()
    broken = tmp_path / "dvc.yaml"
    broken.write_text(
        text.replace("      - fashion/models/cnn.py\n", "")
        .replace("      - dnn\n", "      - dnn\n      - cnn\n")
        .replace("    params:\n      - fetch\n", "")
        .replace("      - reports/cnn/history.csv\n", "")
    )
    assert dvc_deps.problems(broken) == [
        "dvc.yaml: fetch: params: add fetch",
        "dvc.yaml: train_dnn: params: remove cnn",
        "dvc.yaml: train_cnn: deps: add fashion/models/cnn.py",
        "dvc.yaml: plot: deps: add reports/cnn/history.csv",
    ]
    dvc_deps.write(broken)
    assert dvc_deps.problems(broken) == []
    assert YAML(typ="safe").load(broken) == PIPELINE
    assert len(broken.read_text().splitlines()) == len(text.splitlines())


@pytest.mark.parametrize("name", STAGES)
def test_the_command_names_every_output(name: str) -> None:
    unnamed = outputs(STAGES[name]) - set(shlex.split(STAGES[name]["cmd"]))
    assert unnamed == set(), f"dvc.yaml: {name}: add to the command, or remove from the outputs"


def test_only_evaluation_and_pictures_read_the_test_images() -> None:
    readers = {name for name, stage in STAGES.items() if "data/test.npz" in stage["deps"]}
    assert readers == {"evaluate", "export", "plot", "card"}


def names(tree: ast.AST, name: str) -> list[ast.Name]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_takes_params_by_section_only(name: str) -> None:
    """Params that are handed on as a whole, or under another name, would be read out of the contract's sight."""
    tree = ast.parse((ROOT / "stages" / f"{name}.py").read_text())
    assert "params = load_params()" in {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    assert len(names(tree, "load_params")) == 1
    sections = [
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.value in names(tree, "params")
    ]
    assert len(names(tree, "params")) == 1 + len(sections)


def test_only_stages_read_params() -> None:
    """Besides the schema, and what runs the stages and stops before it does if params.yaml is wrong."""
    allowed = {ROOT / "fashion" / name for name in ("params.py", "pipeline.py")}
    for path in set((ROOT / "fashion").rglob("*.py")) - allowed:
        assert names(ast.parse(path.read_text()), "load_params") == [], path


def keys(section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation)
        else:
            yield name


@pytest.mark.parametrize("section", Params.model_fields)
def test_every_key_is_used_by_what_reads_its_section(section: str) -> None:
    scripts = [f"stages.{name}" for name, stage in STAGES.items() if section in stage["params"]]
    if section == "review":  # which is no business of a stage
        scripts = ["fashion.cli"]
    used = {
        node.attr
        for file in {file for script in scripts for file in CONTRACT.code(script) if file.endswith(".py")}
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Attribute)
    }
    schema: Any = Params.model_fields[section].annotation
    assert set(keys(schema)) - used == set()


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
