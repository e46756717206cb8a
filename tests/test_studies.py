"""The studies of seeds, ablations, the ladder, the short and the deep training, the gate: settings and summaries."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from benchmarks import baselines
from fashion import study
from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.models import networks
from fashion.params import load_params
from fashion.validation import read_yaml, validated
from studies.ablation import summary
from studies.gate import pairs, simulate
from studies.gate.simulate import Effects
from studies.ladder import plain_cnn, train
from studies.ladder import summary as ladder
from tests.conftest import ROOT, Project, draw_lines

PARAMS = load_params(ROOT / "params.yaml")
STUDIES = {
    path.parent.name: study.read(path, PARAMS.models)
    for path in sorted(ROOT.glob("studies/*/params.yaml"))
    if "stages.study" in path.with_name("dvc.yaml").read_text()
}
VARIANTS = [(name, variant) for name, found in STUDIES.items() for variant in found.variants]


def settings(name: str, variant: str) -> dict[str, Any]:
    """Return all params of a variant."""
    changes = dict(STUDIES[name].variants[variant])
    return networks.params_of(changes.pop("model"), PARAMS, changes).model_dump()


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_settings(name: str, variant: str) -> None:
    """They are valid, and no two variants of a study are the same."""
    others = [other for other in STUDIES[name].variants if other != variant]
    assert settings(name, variant) not in [settings(name, other) for other in others]


def test_steps_of_the_ladder() -> None:
    trials = pd.DataFrame(
        [
            ("cnn: plain", 1, 0.90, 10.0, 7, 1_000_000),
            ("cnn: plain", 2, 0.92, 30.0, 7, 1_000_000),
            ("cnn: adam", 1, 0.93, 10.0, 1234, 2_340_000),
            ("cnn: adam", 2, 0.93, 10.0, 1234, 2_340_000),
            ("dnn: plain: again", 1, 0.80, 8.0, 9, 9_000),
            ("dnn: plain: again", 2, 0.80, 8.0, 9, 9_000),
        ],
        columns=["variant", "seed", "val_accuracy", "seconds", "parameters", "inference_flops"],
    )
    table = ladder.summarise(trials)
    rows = [line for line in ladder.markdown(table).splitlines() if "%" in line]
    assert rows == [
        "| plain | 91.00% ± 1.41% | 1.00 | 7 | 1.0 |",
        "| adam | 93.00% ± 0.00% | 0.50 | 1,234 | 2.3 |",
        "| plain: again | 80.00% ± 0.00% | 1.00 | 9 | 0.0 |",
    ]
    panels = ladder.draw(table).axes
    assert [panel.get_title("left") for panel in panels] == ["CNN", "", "DNN", ""]


def test_plain_cnn() -> None:
    """It is the network whose training time is T_ref, but for the scaling of the pixels."""
    shape, classes = PARAMS.dataset.image_shape, len(PARAMS.dataset.classes)
    labels = np.arange(classes, dtype=np.uint8)
    params = plain_cnn.Params.model_validate(PARAMS.training.model_dump())
    plain = plain_cnn.build(params, Split(np.zeros((classes, *shape), np.uint8), labels))
    shapes = [[weight.shape for weight in model.weights] for model in (plain, baselines.tutorial())]
    assert shapes[0] == shapes[1]


def small_ladder() -> train.Study:
    values = read_yaml(ROOT / "studies" / "ladder" / "params.yaml")
    return validated(train.Study, {**values, "seeds": [1, 2]}, "ladder")


def test_ladder_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is valid and, on a processor with bfloat16 instructions, no two are the same."""
    monkeypatch.setattr("fashion.models.processor.has_bfloat16", lambda: True)
    study = small_ladder()
    declared = train.declare(study, {})
    assert len({trial.key for trial in declared}) == len(declared) == 2 * sum(map(len, study.steps.values()))
    for first, found in (({"network": "other"}, "other"), ({"epochs": 3}, "")):
        unknown = study.model_copy(update={"steps": {"cnn": {"plain": first}}})
        with pytest.raises(UserError, match=f"network: found '{found}', expected one of plain_dnn, plain_cnn"):
            train.declare(unknown, {})


def test_equal_seeds_of_the_ladder() -> None:
    values = {**small_ladder().model_dump(), "seeds": [1, 1]}
    with pytest.raises(UserError, match="ladder: seeds: should list each seed once"):
        validated(train.Study, values, "ladder")


@pytest.mark.slow
def test_ladder_stage(tmp_path: Path) -> None:
    """The stage trains the steps on Ray, and draws them."""
    for name, seed in (("train", 1), ("validation", 2)):
        dataset.save(Split(*draw_lines(90, seed)), tmp_path / name)
    study = small_ladder().model_dump()
    first = {model: dict(list(steps.items())[:1]) for model, steps in study["steps"].items()}
    changes = {"start": {**study["start"], "epochs": 1}, "steps": first}
    YAML().dump({**study, **changes, "seeds": [1, 2]}, tmp_path / "params.yaml")
    project = Project(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)})
    project.run(sys.executable, "-m", "studies.ladder.train", "params.yaml", "train", "validation", "trials.csv")
    done = project.run(sys.executable, "-m", "studies.ladder.summary", "trials.csv", "table.csv", "figure.png")
    assert done.stdout.count("| plain | ") == 2
    assert (tmp_path / "figure.png").stat().st_size > 0


def test_comparison_seed_by_seed() -> None:
    trials = pd.DataFrame(
        [
            ("default", 1, 0.90, 10.0),
            ("default", 2, 0.92, 20.0),
            ("default", 3, 0.91, 10.0),
            ("wide", 1, 0.91, 15.0),
            ("wide", 2, 0.95, 40.0),
            ("half", 3, 0.80, 5.0),
        ],
        columns=["variant", "seed", "val_accuracy", "seconds"],
    ).assign(parameters=7)
    table = summary.compare(trials)
    assert list(table.index) == ["wide", "default", "half"]
    wide = table.loc["wide"]
    assert wide["seeds"] == 2
    assert wide["points"] == pytest.approx(2)
    assert wide["points_interval"] == pytest.approx(12.706, rel=1e-3)  # Student's t with one degree of freedom
    assert wide["time"] == pytest.approx(1.75)
    assert table.loc["default", "points_interval"] == 0
    assert "| wide | 93.00% | +2.00 ± 12.71 | 1.75 ± 3.18 | 7 |" in summary.markdown(table).splitlines()
    assert summary.draw(table).axes[0].get_xlabel().startswith("validation accuracy")


def test_simulated_effects_are_recovered() -> None:
    effects = Effects(accuracy=0.9, image=0.8, seed=0.0005, correlation=0.9, images=10_000)
    found = Effects.fit(*effects.draw(np.random.default_rng(0), 0.0, 40))
    assert found.accuracy == pytest.approx(0.9, abs=0.01)
    assert found.image == pytest.approx(0.8, abs=0.02)
    assert found.seed == pytest.approx(0.0005, rel=0.4)
    assert found.correlation == pytest.approx(0.9, abs=0.02)


def test_simulated_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large loss is found by both gates; the intervals are wide enough."""
    monkeypatch.setattr(simulate, "REPETITIONS", 20)
    monkeypatch.setattr(simulate, "CHANGES", {simulate.SAME_RECIPE: 0.0, "-2 points": -0.02})
    effects = Effects(accuracy=0.9, image=0.9, seed=0.0, correlation=0.95, images=10_000)
    same, loss = simulate.gate_failures(effects)
    assert max(same["model"], same["recipe"]) <= 0.2
    assert (loss["model"], loss["recipe"]) == (1, 1)
    assert all(min(row["random_effects"], row["bootstrap"]) > 0.7 for row in simulate.coverages(effects))


def test_pairs_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of models with 10, 11, 12 and 50 errors of 100, only the last one differs from the others."""
    monkeypatch.setattr(pairs, "CHANGES", [("a", "b")])
    errors = [" ".join(map(str, range(count))) for count in (10, 11, 50, 10, 11, 12)]
    table = pd.DataFrame({"variant": [*"aaabbb"], "errors": errors})
    trials = pairs.read(io.StringIO(table.to_csv()), 100)
    assert trials["a"].mean(axis=1).tolist() == [0.9, 0.89, 0.5]
    found = pairs.summarise(trials)[["base", "head", "pairs", "better", "worse"]]
    assert found.to_numpy().tolist() == [["a", "a", 3, 0, 2], ["b", "b", 3, 0, 0], ["a", "b", 9, 3, 0]]
