"""dvc.yaml declares what the code reads, dvc.lock is up to date, and params.yaml has no unused keys."""

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from ruamel.yaml import YAML

from fashion import dvc_deps
from fashion.dvc import md5
from fashion.errors import UserError
from fashion.models import networks
from fashion.params import Params, TrainingParams
from fashion.review.rules import Rules
from fashion.validation import look_up
from tests.conftest import MODELS, ROOT

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES: dict[str, Any] = {name: entry.get("do", entry) for name, entry in PIPELINE["stages"].items()}
TREE = dvc_deps.SourceTree()


def outputs(stage: dict[str, Any]) -> set[str]:
    return set().union(*(dvc_deps._paths(stage.get(key, [])) for key in ("outs", "metrics", "plots")))


@pytest.mark.parametrize("pipeline", dvc_deps.PIPELINES, ids=lambda path: str(path.relative_to(ROOT)))
def test_up_to_date(pipeline: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dvc.yaml"
    copy.write_bytes(pipeline.read_bytes())
    assert dvc_deps.write(copy)[copy] == [], "run `make deps`"


def test_write(tmp_path: Path) -> None:
    text = (ROOT / "dvc.yaml").read_text()
    last = MODELS[-1]
    broken = tmp_path / "dvc.yaml"
    broken.write_text(
        text.replace(f"      - fashion/models/{last}.py\n", "")
        .replace(f"      - models.{last}\n", f"      - models.{last}\n      - fetch\n")
        .replace("    params:\n      - audit\n      - dataset\n      - validation\n", "", 1)
        .replace(f"      - reports/{last}/history.csv\n", "")
        .replace(f"        reports/{last}/history.csv: [loss, val_loss]\n", "")
        .replace(f"  {last}:\n    type: model\n    path: models/{last}/model.tflite\n", "")
    )
    assert dvc_deps.write(broken)[broken] == [
        *(f"preprocess: params: added {section}" for section in ("audit", "dataset", "validation")),
        f"train_{last}: params: removed fetch",
        f"train_{last}: deps: added fashion/models/{last}.py",
        f"plot: deps: added reports/{last}/history.csv",
        f"card: deps: added reports/{last}/history.csv",
        f"plots: Loss: added reports/{last}/history.csv",
        f"artifacts: added {last}",
    ]
    assert dvc_deps.write(broken)[broken] == []
    assert YAML(typ="safe").load(broken) == PIPELINE
    assert "&id" not in broken.read_text()
    assert len(broken.read_text().splitlines()) == len(text.splitlines())


def test_model_that_was_never_trained(tmp_path: Path) -> None:
    """Reverting its section removes it, although dvc.lock has no record of it."""
    file, content = tmp_path / "dvc.yaml", YAML(typ="safe").load(ROOT / "dvc.yaml")
    content["plots"][0]["Accuracy"]["y"]["reports/gone/history.csv"] = ["accuracy"]
    content["artifacts"]["gone"] = {"type": "model", "path": "models/gone/model.tflite"}
    YAML().dump(content, file)
    assert dvc_deps.write(file)[file] == [
        "plots: Accuracy: removed reports/gone/history.csv",
        "artifacts: removed gone",
    ]
    assert YAML(typ="safe").load(file) == PIPELINE


def test_models_without_a_network_or_a_stage() -> None:
    stages, first = PIPELINE["stages"], MODELS[0]
    TREE.check_models(stages)
    with pytest.raises(UserError, match=f"no stage trains the model {first}: add one whose script imports"):
        TREE.check_models({name: stage for name, stage in stages.items() if name != f"train_{first}"})
    tree = dvc_deps.SourceTree()
    tree.models.append("rnn")
    with pytest.raises(UserError, match=r"models\.rnn: there is no fashion/models/rnn\.py"):
        tree.check_models(stages)


OTHERS = {
    "plots": [
        "reports/other.csv",
        {"reports/b.csv": None},
        {"reports/a.csv": {"x": "a", "y": "b"}},
        {"Drift": {"y": {"reports/drift.csv": "drift"}}},
    ],
    "artifacts": {"testset": {"type": "dataset", "path": "data/test"}},
    "stages": {
        "shell": {"cmd": "echo reports/other.csv && python -m pip check"},
        "sweep": {"foreach": ["a"], "do": {"cmd": "echo ${item}"}},
    },
}


def test_write_keeps_other_entries(tmp_path: Path) -> None:
    file, content = tmp_path / "dvc.yaml", YAML(typ="safe").load(ROOT / "dvc.yaml")
    content["plots"] += OTHERS["plots"]
    content["artifacts"] |= OTHERS["artifacts"]
    content["stages"] |= OTHERS["stages"]
    YAML().dump(content, file)
    assert dvc_deps.write(file)[file] == []
    (tmp_path / "dvc.lock").write_text(
        yaml.safe_dump({"stages": {"sweep@a": {}, "shell": {}, "evaluate@gone": {}, "old": {}}})
    )
    assert dvc_deps.stale_lock_entries(file) == ["evaluate@gone", "old"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [", "is not YAML"),
        ("stagez: {}", "expected a mapping with the key stages"),
        ("stages: {one: {deps: []}}", "one: has no cmd"),
        ("stages: {one: {cmd: python -m stages.train_rnn}}", "one: there is no module stages.train_rnn"),
        (
            "stages: {one: {cmd: python -m stages.study data/train}}",
            "one: the command of stages.study names no params.yaml",
        ),
    ],
)
def test_wrong_dvc_yaml(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        dvc_deps.write(tmp_path / "dvc.yaml")


def test_study(tmp_path: Path) -> None:
    """A study depends on its networks and, as every stage, on the code of all its commands, if it computes anything."""
    (tmp_path / "dvc.yaml").write_text(
        """
stages:
  ablation:
    cmd:
      - python -m stages.study studies/ablation/params.yaml data/train data/validation studies/ablation/trials.csv
      - python -m studies.ablation.summary studies/ablation/trials.csv studies/ablation/table.csv
    outs:
      - studies/ablation/trials.csv
      - studies/ablation/table.csv
"""
    )
    dvc_deps.write(tmp_path / "dvc.yaml")
    stage = YAML(typ="safe").load(tmp_path / "dvc.yaml")["stages"]["ablation"]
    assert stage["deps"][:3] == ["studies/ablation/params.yaml", "data/train", "data/validation"]
    assert {"stages/study.py", "fashion/models/cnn.py", "studies/ablation/summary.py"} <= set(stage["deps"])
    assert "fashion/models/dnn.py" not in stage["deps"]
    assert dvc_deps.COMPUTE_NOTHING.isdisjoint(stage["deps"])
    assert all((ROOT / file).exists() for file in dvc_deps.COMPUTE_NOTHING)
    assert stage["params"] == ["dataset.name", "models.cnn", "training"]


@pytest.mark.parametrize("name", STAGES)
def test_command_names_the_outputs(name: str) -> None:
    words = shlex.split(STAGES[name]["cmd"])
    unnamed = {path for path in outputs(STAGES[name]) if not any(f"{path}/".startswith(f"{word}/") for word in words)}
    assert unnamed == set(), f"dvc.yaml: {name}: add to the command, or remove from the outputs"


def test_only_evaluation_reads_the_test_split() -> None:
    readers = {name for name, stage in STAGES.items() if "data/test" in stage["deps"]}
    assert readers == {"evaluate", "export", "plot"}


def names(tree: ast.AST, name: str) -> list[ast.Name]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]


@pytest.mark.parametrize("name", [name for name in STAGES if not name.startswith("train_")])
def test_params_are_read_by_section(name: str) -> None:
    """dvc_deps finds the params of a stage in expressions such as `params.dataset` only."""
    tree = ast.parse((ROOT / "stages" / f"{name}.py").read_text())
    assert "params = load_params()" in {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    assert len(names(tree, "load_params")) == 1
    sections = [
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.value in names(tree, "params")
    ]
    assert len(names(tree, "params")) == 1 + len(sections)


def test_train_stages_read_their_own_params() -> None:
    """What they share passes the params to `fashion.models.networks` only, which takes those of the model."""
    tree = ast.parse((ROOT / "stages" / "training.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    passed = [ast.unparse(call.func) for call in calls for arg in call.args if arg in names(tree, "params")]
    assert sorted(passed) == ["networks.check", "networks.params_of"]
    assert len(names(tree, "params")) == 1 + len(passed)


def test_only_stages_load_params() -> None:
    allowed = {ROOT / "fashion" / name for name in ("params.py", "pipeline.py", "dvc_deps.py", "tune/run.py")}
    for path in set((ROOT / "fashion").rglob("*.py")) - allowed:
        assert names(ast.parse(path.read_text()), "load_params") == [], path


def keys(section: Any) -> Iterator[str]:
    for schema in get_args(section) or (section,):  # a section may have several forms
        for name, field in schema.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from keys(field.annotation)
            else:
                yield name


SECTIONS: dict[str, tuple[Any, list[str]]] = {
    section: (field.annotation, [f"stages.{name}" for name, stage in STAGES.items() if section in stage["params"]])
    for section, field in Params.model_fields.items()
    if section not in ("models", "review", "tune")
}
SECTIONS |= {f"models.{name}": (networks.load(name).Params, [f"stages.train_{name}"]) for name in MODELS}
SECTIONS["review"] = (Rules, ["fashion.cli"])
SECTIONS["fetch"][1].append("fashion.data.sources")  # also if the data set is a folder of images


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_used(section: str) -> None:
    schema, scripts = SECTIONS[section]
    used = {
        node.attr
        for file in {file for script in scripts for file in TREE.code(script) if file.endswith(".py")}
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert set(keys(schema)) - used == set()


def test_params_have_no_defaults() -> None:
    """A default would be a value that DVC does not track."""
    schemas: list[type[BaseModel]] = [TrainingParams, Params, *(networks.load(name).Params for name in MODELS)]
    assert [name for schema in schemas for name, field in schema.model_fields.items() if not field.is_required()] == []


def locked_stages() -> dict[str, Any]:
    locked: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    return locked


def test_lock_has_the_current_code() -> None:
    stale = {
        f"{name}: {dep['path']}"
        for name, stage in locked_stages().items()
        for dep in stage["deps"]
        if dep["path"].startswith(("fashion/", "stages/")) and md5((ROOT / dep["path"]).read_bytes()) != dep["md5"]
    }
    assert stale == set(), "run `dvc repro` and commit dvc.lock with the reports"


def test_lock_has_the_current_params_and_stages() -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    locked = locked_stages()
    for name, stage in STAGES.items():
        for model in MODELS if "foreach" in PIPELINE["stages"][name] else [""]:
            full_name = f"{name}@{model}" if model else name
            entry = locked.pop(full_name)
            assert entry["params"]["params.yaml"] == {key: look_up(params, key) for key in stage["params"]}, full_name

            def filled(text: str, model: str = model) -> str:
                return text.replace("${key}", model)

            assert entry["cmd"] == filled(stage["cmd"]), full_name
            assert {dep["path"] for dep in entry["deps"]} == {filled(dep) for dep in stage["deps"]}, full_name
            assert {out["path"] for out in entry["outs"]} == {filled(out) for out in outputs(stage)}, full_name
    assert locked == {}, "stages in dvc.lock that dvc.yaml does not have"
