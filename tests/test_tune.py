"""`fashion tune`: the space, the results, the change of params.yaml, and a search with faults."""

import csv
import math
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from fashion import cluster, trials
from fashion.errors import UserError
from fashion.evaluation.figures import png
from fashion.models.progress import DivergedError
from fashion.params import Params, check_params, load_params
from fashion.tune import confirmation, report, run, space
from fashion.tune.confirmation import Summary
from fashion.tune.space import Result, Space
from fashion.validation import edited, parse_yaml, read_yaml
from tests.conftest import FASHION, ROOT, SHAPE, Project, clone, idx_params

IMAGE_SHAPE = (*SHAPE, 1)
CHANGES = {"learning_rate": 0.03, "hidden_units": [24, 12], "augmentation.translate": 2, "augmentation.cutout": 3}


def params(tune: Mapping[str, Any], **dnn: Any) -> Params:
    """Return params with a small dense network, and a section `tune`."""
    values = parse_yaml(idx_params(), "params.yaml")
    own = {
        "hidden_units": [16],
        "batch_normalization": "fused",
        "dropout": 0.1,
        "learning_rate": 0.02,
        **dnn,
    }
    return check_params({**values, "models": {"dnn": own}, "tune": tune}, "params.yaml")


def dnn_space(searches: Mapping[str, Any], **dnn: Any) -> Space:
    return space.load("dnn", params({"dnn": searches}, **dnn), IMAGE_SHAPE)


def problems(model: str, params: Params) -> list[str]:
    try:
        space.load(model, params, params.dataset.image_shape)
    except UserError as error:
        return str(error).splitlines()
    return []


def result(number: int, val_accuracy: float, seconds: float = 1.0, **values: Any) -> Result:
    return Result(number, values, 1, "finished", val_accuracy, 4, seconds, [[50.0, val_accuracy - 0.1]])


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"rnn": {}}, "tune.rnn: there is no section models.rnn; remove this one"),
        ({"dnn": {"epochs": {"min": 3, "max": 3}}}, "tune.dnn.epochs: min should be less than max"),
        ({"dnn": {"dropout": {"min": 0, "max": 1, "log": True}}}, "with log, min should be greater than 0"),
        ({"dnn": {"dropout": {"min": 0.1}}}, "tune.dnn.dropout.max: missing"),
        ({"dnn": {"dropout": {"min": 0.1, "max": 0.3, "step": 0.1}}}, "tune.dnn.dropout.step: unknown key"),
        ({"dnn": {"epochs": {"min": 1, "max": float("inf")}}}, "tune.dnn.epochs.max"),
        ({"dnn": {"epochs": [3]}}, "tune.dnn.epochs: should be a list of at least two different choices, or a mapping"),
        ({"dnn": {"epochs": [3, 4, 3]}}, "tune.dnn.epochs: should be a list of at least two different choices"),
        ({"dnn": {"epochs": list(range(1001))}}, "tune.dnn.epochs: should have at most 1,000 choices"),
        ({"dnn": {"optimizer": ["adam", date(2024, 1, 1)]}}, "tune.dnn.optimizer: should have choices that JSON can"),
        ({"dnn": {"epochs": 3}}, "tune.dnn.epochs: should be a list of at least two different choices"),
    ],
)
def test_schema(tune: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        params(tune)
    assert str(error.value).startswith("params.yaml: tune.")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("searches", "message"),
    [
        ({"learning_rate": {"min": 0.01, "max": 2.0}}, "learning_rate: should be less than or equal to 1, found 2.0"),
        ({"epochs": {"min": 2, "max": 90.0}}, "epochs: should be a valid integer, found 90.0"),
        ({"hidden_units": [[16], [0]]}, "hidden_units.0: should be greater than 0, found 0"),
        ({"filters": [[16], [32]]}, "filters: unknown key"),
        ({"augmentation.shift": [0, 1]}, "augmentation.shift: unknown key"),
        ({"augmentation.translate": [1, 20]}, "augmentation.translate: 20 pixels can move images of 20 x 24 pixels"),
        ({"seed": [1, 2]}, "seed: the best seed would win by chance"),
        ({"hidden_units": [[8], [32]]}, "hidden_units: excludes the current value of models.dnn.hidden_units, [16]"),
        (
            {"dropout": {"min": 0.2, "max": 0.3}},
            "dropout: excludes the current value of models.dnn.dropout, 0.1",
        ),
    ],
)
def test_space(searches: Mapping[str, Any], message: str) -> None:
    (problem,) = problems("dnn", params({"dnn": searches}))
    assert problem.startswith(f"params.yaml: tune.dnn.{message}")


def test_missing_section() -> None:
    (problem,) = problems("dnn", params({}))
    assert problem.startswith("params.yaml has no section tune.dnn; declare there")


def test_settings() -> None:
    searched = dnn_space({"hidden_units": [[16], [24, 12]], "augmentation.translate": {"min": 0, "max": 3}})
    assert searched.current == {"hidden_units": [16], "augmentation.translate": 1}
    values = {"hidden_units": [24, 12], "augmentation.translate": 1}
    settings = searched.settings(values, seed=5)
    assert (settings.augmentation.translate, settings.augmentation.flip, settings.seed) == (1, True, 5)
    assert searched.changes(values) == {"hidden_units": [24, 12]}
    assert searched.describe(values) == "hidden_units [24, 12]"
    assert searched.describe(searched.current) == "the current params"


def test_own_section() -> None:
    """The values are valid; whether the current ones are among them depends on the data set."""
    own = load_params(ROOT / "params.yaml")
    for model in own.tune:
        assert [line for line in problems(model, own) if "the current value" not in line] == []


def test_values_of_optuna() -> None:
    from fashion.tune import search

    searched = dnn_space(
        {
            "learning_rate": {"min": 0.012345, "max": 0.1, "log": True},
            "epochs": {"min": 2, "max": 50},
            "hidden_units": [[16], [24, 12]],
            "hard_examples.epoch_fraction": [0.5, 1],
        },
        learning_rate=0.0234567,
    )
    current = search._encode(searched, searched.current)
    assert current["hidden_units"] == "[16]"
    assert search._decode(searched, current) == searched.current
    config = {**current, "learning_rate": 0.0123451, "epochs": 7, "hard_examples.epoch_fraction": "1"}
    values = search._decode(searched, config)
    assert values == {
        "learning_rate": 0.012345,  # rounded to three digits, it would be out of the range
        "epochs": 7,
        "hidden_units": [16],
        "hard_examples.epoch_fraction": 1,
    }
    assert search._decode(searched, {**config, "learning_rate": 0.0567891})["learning_rate"] == 0.0568
    assert search._encode(searched, values)["hard_examples.epoch_fraction"] == "1"


def test_resumed_search_knows_earlier_results() -> None:
    from fashion.tune import search

    searched = dnn_space({"dropout": {"min": 0.0, "max": 0.3}, "hidden_units": [[16], [32]]})
    known = [result(number, 0.9, dropout=0.01 * number, hidden_units=[32]) for number in range(1, 5)]
    scheduler = search._scheduler(known)  # knows 0.8 at 50 %
    for name, val_accuracy, decision in (("better", 0.85, "CONTINUE"), ("worse", 0.75, "STOP")):
        trial = type("Trial", (), {"trial_id": name})()
        scheduler.on_trial_add(None, trial)
        assert scheduler.on_trial_result(None, trial, {"progress": 50, "val_accuracy": val_accuracy}) == decision
    first = search._sampler(searched, []).suggest("a")
    assert first == search._encode(searched, searched.current)
    resumed, again = search._sampler(searched, known), search._sampler(searched, known)
    study: Any = resumed._ot_study
    assert len(study.trials) == len(known) + 1  # and the current values, which it proposes next
    assert [resumed.suggest(name) for name in "abc"] == [again.suggest(name) for name in "abc"]
    assert search._sampler(searched, [result(0, 0.9, **searched.current)]).suggest("a") != first


def test_edit() -> None:
    text = idx_params()
    model = read_yaml(ROOT / "params.yaml")["models"]["dnn"]
    new = edited(text, {f"models.dnn.{key}": value for key, value in CHANGES.items()})
    patch = report.diff(text, new).splitlines()
    assert patch[:2] == ["--- a/params.yaml", "+++ b/params.yaml"]
    assert [line for line in patch[2:] if line[0] in "+-"] == [
        "+    learning_rate: 0.03",
        "+    augmentation: {translate: 2, cutout: 3}",
        f"-    hidden_units: {model['hidden_units']} # one dense layer each",
        "+    hidden_units: [24, 12] # one dense layer each",
    ]
    before, after = (check_params(parse_yaml(one, "params.yaml"), "params.yaml") for one in (text, new))
    changed = after.models["dnn"]
    assert changed["augmentation"] == {**before.models["dnn"]["augmentation"], "translate": 2, "cutout": 3}
    assert (changed["hidden_units"], changed["learning_rate"]) == ([24, 12], 0.03)
    assert after.models["cnn"] == before.models["cnn"]
    assert edited(text, {}) == text
    assert report.diff(text, text) == ""
    assert "cutout: 4}" in edited(new, {"models.dnn.augmentation.cutout": 4})


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1))
def test_pareto_front(points: list[tuple[int, int]]) -> None:
    front = [
        (one.seconds, one.val_accuracy)
        for one in report.pareto_front([result(1, float(a), float(s)) for s, a in points])
    ]
    undominated = {
        (seconds, accuracy)
        for seconds, accuracy in points
        if not any(s <= seconds and a >= accuracy and (s, a) != (seconds, accuracy) for s, a in points)
    }
    assert front == sorted(undominated)


@given(st.lists(st.integers(900, 950), min_size=6, max_size=6, unique=True))
def test_difference_against_its_standard_error(accuracies: list[int]) -> None:
    groups = [one / 1000 for one in accuracies[:3]], [one / 1000 for one in accuracies[3:]]
    better, other = confirmation.summarize(
        [result(number, accuracy) for number, group in enumerate(groups) for accuracy in group]
    )
    t = abs(ttest_ind(*groups, equal_var=False).statistic)  # the difference over its standard error
    if abs(t - 2) > 1e-6:
        assert better.exceeds(other) == (t > 2)


def test_summary() -> None:
    accuracies = {0: (0.90, 0.91, 0.92), 3: (0.92, 0.93, 0.94), 5: (0.90, 0.91, 0.92)}
    summaries = confirmation.summarize(
        [result(number, one, 10.0 + number) for number, group in accuracies.items() for one in group]
    )
    assert [summary.number for summary in summaries] == [3, 0, 5]  # the current params win a tie
    assert (summaries[0].mean, summaries[0].deviation, summaries[0].seconds) == pytest.approx((0.93, 0.01, 13))
    assert report.recommendation(summaries) == (
        "Trial 3 is 2.00 percentage points better than the current params, which is more than twice the standard error "
        "of the difference. Training takes 1.30 times as long. Use its params."
    )
    assert confirmation.recommended(summaries).number == 3
    assert report.recommendation(summaries[1:]) == (
        "No confirmed configuration has a higher mean than the current params. Keep the current params."
    )
    assert confirmation.recommended(summaries[1:]).number == 0


def test_better_by_chance() -> None:
    accuracies = {0: (0.90, 0.91, 0.92), 3: (0.91, 0.92, 0.93)}
    summaries = confirmation.summarize([result(number, one) for number, group in accuracies.items() for one in group])
    assert summaries[0].number == 3
    assert confirmation.recommended(summaries).number == 0
    assert report.recommendation(summaries) == (
        "Trial 3 is 1.00 percentage points better than the current params, which is not more than twice the standard "
        "error of the difference. Training takes 1.00 times as long. Keep the current params."
    )


def test_report() -> None:
    searched = dnn_space({"hidden_units": [[16], [32]], "dropout": {"min": 0.0, "max": 0.3}})
    stopped = Result(2, {"hidden_units": [16], "dropout": 0.0}, 1, "stopped early", 0.5, 1, 1.0, [])
    results = [
        result(0, 0.91, 20.0, **searched.current),
        result(1, 0.92, 30.0, hidden_units=[32], dropout=0.2),
        stopped,
    ]
    rows = list(csv.DictReader(report.table(results).to_csv(index=False).splitlines()))
    assert rows[1] == {
        "trial": "1",
        "seed": "1",
        "outcome": "finished",
        "val_accuracy": "0.92",
        "trained_epochs": "4",
        "seconds": "30.0",
        "hidden_units": "[32]",
        "dropout": "0.2",
    }
    lines = report.markdown(
        searched, results, [Summary(1, 0.92, 0.001, 31.0), Summary(0, 0.91, 0.002, 20.0)]
    ).splitlines()
    assert lines[0] == "Best trials of the search (2 finished, 1 stopped early)"
    assert "| 1 | 92.00% | 30 s | hidden_units [32], dropout 0.2 |" in lines
    assert "| 0 | 91.00% ± 0.20 | 20 s | the current params |" in lines
    figure = report.draw("dnn", results, best=1)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Pareto front",
        "stopped early (those below the axis are drawn on it)",
        "finished",
        "current params",
        "recommended",
    ]
    assert png(figure) == png(report.draw("dnn", results, best=1))


def test_diverged_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_args: object) -> None:
        raise DivergedError("training diverged")

    monkeypatch.setattr(trials, "train", diverge)
    outcome = confirmation.train(trials.Trial("trial 1", "dnn", 1, None, ""), {})
    assert (outcome["outcome"], outcome["val_accuracy"]) == ("diverged", 0.0)


@pytest.mark.parametrize(("count", "hours"), [(1, None), (2, 0.0), (2, math.inf), (2, math.nan)])
def test_bad_limits(count: int, hours: float | None) -> None:
    with pytest.raises(UserError, match=f"^found --trials {count}, --hours {hours}; expected at least 2 trials"):
        run.run("dnn", count, hours, fresh=False, apply=False)


def test_nothing_to_confirm() -> None:
    searched = dnn_space({"dropout": {"min": 0.0, "max": 0.3}})
    with pytest.raises(UserError, match="no new configuration has finished training"):
        confirmation.confirm(searched, [result(0, 0.9, dropout=0.1)], {}, {}, fresh=False)


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="install the `cluster` extra"), cluster.connect(()):
        pass


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265"])
def test_address_of_another_kind(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=f"^RAY_ADDRESS={address}: expected the HOST:PORT"), cluster.connect(()):
        pass


NETWORK = '''"""A network whose training fails on request."""

import os
from pathlib import Path

import keras
from keras import layers

from fashion.data.dataset import Split
from fashion.models.layers import standardization
from fashion.models.optimizers import OUTPUT
from fashion.params import TrainingParams


class Params(TrainingParams):
    fault: str


def build(params: Params, train: Split) -> keras.Model:
    if params.fault == "exit":
        os._exit(1)
    scale = 1.0
    if (file := Path("DIVERGE")).exists():
        file.unlink()
        scale = float("nan")
    model = keras.Sequential([keras.Input(train.image_shape, dtype="uint8"), standardization(train.images)])
    model.add(layers.Rescaling(scale))
    model.add(layers.Flatten())
    model.add(layers.Dense(train.num_classes, name=OUTPUT))
    model.add(layers.Softmax())
    return model
'''


@pytest.fixture
def fragile(tmp_path: Path, raw_folder: Path) -> Project:
    """Return a project with splits, but no test set, and a network whose next training diverges if a file is there."""
    project = clone(tmp_path, raw_folder)
    project.run("dvc", "repro", "preprocess")
    shutil.rmtree(tmp_path / "data" / "test")
    (tmp_path / "fashion" / "models" / "fragile.py").write_text(NETWORK.replace("DIVERGE", str(tmp_path / "diverge")))

    def edit(params: Any) -> None:
        params["models"]["fragile"] = {"optimizer": "adam", "learning_rate": 0.0001, "epochs": 3, "fault": "none"}
        searches = {"fault": ["none", "no", "exit"], "learning_rate": {"min": 0.0001, "max": 0.1, "log": True}}
        params["tune"] = {"fragile": searches}

    project.edit_params(edit)
    return project


@pytest.mark.slow
def test_search(fragile: Project) -> None:
    """Killed, it resumes; trials that diverge or crash do not end it; the test set is not there."""
    command = [*FASHION, "tune", "fragile", "--trials", "6"]
    with subprocess.Popen(
        command,
        cwd=fragile.folder,
        env=fragile.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        ended = next((line for line in process.stdout if line.startswith("trial ")), None)
        process.send_signal(signal.SIGKILL)
    assert ended
    (fragile.folder / "diverge").touch()
    output = fragile.run(*command).stdout
    assert re.search(r"^\d trials already have results$", output, re.MULTILINE), output
    assert ended not in output, output  # not trained again
    assert ", diverged after 0 epochs: " in output, output
    assert "\nfailed: " in output, output
    assert "--- a/params.yaml\n+++ b/params.yaml\n" in output, output
    rows = list(csv.DictReader((fragile.folder / "reports" / "tune" / "fragile.csv").read_text().splitlines()))
    assert {row["outcome"] for row in rows} >= {"finished", "diverged"}
    confirmed = [row for row in rows if row["seed"] != "1"]
    assert {(row["trial"], row["seed"]) for row in confirmed} >= {("0", "2"), ("0", "3"), ("0", "4")}
    assert len(confirmed) in (6, 9, 12)
    assert (fragile.folder / "reports" / "tune" / "fragile.png").exists()

    before = read_yaml(fragile.folder / "params.yaml")
    applied = fragile.run(*command, "--apply").stdout
    assert not re.search("^(trial|failed)", applied, re.M)  # nothing was trained again
    assert applied.splitlines()[-1] == "Written: reports/tune/fragile.csv, reports/tune/fragile.png, params.yaml"
    after = read_yaml(fragile.folder / "params.yaml")
    assert after["models"].pop("fragile") != before["models"].pop("fragile")
    assert after == before
