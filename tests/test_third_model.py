"""A third model is four edits; removing it is the reverse."""

import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from fashion.serving.app import Demo
from tests.conftest import FASHION, MODELS, Project
from tests.test_pipeline import FIGURES, digest, stages_run, stale

FIRST = MODELS[0]
STAGES = {"train_logistic", "evaluate@logistic", "export@logistic", "plot", "card"}


def code_blocks(text: str) -> list[str]:
    """Return the Python and YAML code in a Markdown file, without its indentation."""
    return [textwrap.dedent(block) for block in re.findall(r"```(?:python|yaml)\n(.*?)\n *```", text, re.DOTALL)]


def add_model(folder: Path) -> None:
    """Make the four edits of docs/extend.md."""
    network, section, script, stage = code_blocks((folder / "docs" / "extend.md").read_text())[:4]
    (folder / "fashion" / "models" / "logistic.py").write_text(network)
    params = YAML(typ="safe").load(folder / "params.yaml")
    params["models"] |= YAML(typ="safe").load(section)["models"]
    YAML().dump(params, folder / "params.yaml")
    (folder / "stages" / "train_logistic.py").write_text(script)
    text, stage = (folder / "dvc.yaml").read_text(), stage.removeprefix("stages:\n")
    (folder / "dvc.yaml").write_text(text.replace("  evaluate:\n", f"{stage}\n\n  evaluate:\n", 1))


def test_four_edits(copied: Project) -> None:
    """Only the stages of the model become stale, and those that report on all models."""
    add_model(copied.folder)
    copied.run("python", "-m", "fashion.dvc_deps")
    assert stale(copied) == STAGES
    assert copied.run("python", "-m", "fashion.dvc_deps").stdout == ""


@pytest.fixture(scope="module")
def extended(project: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """Return a copy of the project with the third model, and what `dvc repro` printed."""
    folder = shutil.copytree(project.folder, tmp_path_factory.mktemp("third") / "copy", symlinks=True)
    copy = Project(folder, project.environment)
    add_model(folder)
    copy.run("python", "-m", "fashion.dvc_deps")
    return copy, copy.run("dvc", "repro").stdout


@pytest.mark.slow
def test_only_its_stages_run(extended: tuple[Project, str]) -> None:
    project, output = extended
    assert set(stages_run(output)) == STAGES
    assert "up to date" in project.run("dvc", "repro").stdout


@pytest.mark.slow
def test_it_is_everywhere(extended: tuple[Project, str]) -> None:
    project, _ = extended
    folder = project.folder
    assert "<td>LOGISTIC</td>" in (folder / "reports" / "index.html").read_text()
    assert "| LOGISTIC |" in (folder / "reports" / "MODEL_CARD.md").read_text()
    assert "| LOGISTIC |" in project.run(*FASHION, "results").stdout
    assert "**logistic**" in project.run(*FASHION, "review", "--base", "HEAD").stdout
    assert project.run(*FASHION, "predict", "--model", "logistic", "--test-index", "0").stdout.startswith(
        "test image 0: "
    )
    assert "logistic" in [model["name"] for model in Demo(folder).predict_test_image(0)["models"]]


@pytest.mark.slow
def test_dvc_plots(extended: tuple[Project, str]) -> None:
    """Every chart is drawn, without a network."""
    project, _ = extended
    project.run("python", ".dvc/plots/page.py")
    project.run("dvc", "config", "--local", "plots.html_template", "plots/page.html")
    project.run("dvc", "plots", "diff", "HEAD")
    page = (project.folder / "dvc_plots" / "index.html").read_text()
    assert re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(?:https?:)?//""", page) == []
    specs = [json.loads(spec) for spec in re.findall(r"var spec = (\{.*?\});\s*vegaEmbed", page, re.DOTALL)]
    rows = {
        spec["title"]["text"] if isinstance(spec["title"], dict) else spec["title"]: spec["data"]["values"]
        for spec in specs
    }
    models = [*MODELS, "logistic"]
    assert {f"Confusion matrix: {model}" for model in models} | {"Accuracy", "Loss"} <= set(rows)
    for chart in ("Accuracy", "Loss"):
        assert {row["filename"] for row in rows[chart]} == {f"{model}/history.csv" for model in models}
    predictions = rows[f"Confusion matrix: {FIRST}"]
    assert sum(row["rev"] == "workspace" for row in predictions) == 90
    assert len(re.findall(r"<img[^>]* src=", page)) >= len(FIGURES)


@pytest.mark.slow
def test_removal(extended: tuple[Project, str], project: Project) -> None:
    copy, _ = extended
    copy.run("git", "checkout", "-q", "params.yaml", "dvc.yaml")
    for file in ("fashion/models/logistic.py", "stages/train_logistic.py"):
        Path(copy.folder, file).unlink()
    pruned = copy.run("python", "-m", "fashion.dvc_deps").stdout.splitlines()
    gone = ("evaluate@logistic", "export@logistic", "train_logistic")
    has_studies = (copy.folder / "studies" / "seeds").exists()  # docs/extend.md says how to delete them
    in_studies = ("deps: removed fashion/models/logistic.py", "params: removed models.logistic") if has_studies else ()
    assert sorted(pruned) == [
        *(f"dvc.lock: removed {name}" for name in gone),
        *(f"studies/seeds/dvc.yaml: seeds: {line}" for line in in_studies),
    ]
    output = copy.run(*FASHION, "run").stdout
    assert not [stage for stage in stages_run(output) if stage.startswith("train_")]
    assert "No model in params.yaml uses these folders; delete them: models/logistic, reports/logistic\n" in output
    assert "LOGISTIC" not in (copy.folder / "reports" / "index.html").read_text()
    assert digest(copy.folder / "dvc.lock") == digest(project.folder / "dvc.lock")
