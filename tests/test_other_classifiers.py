"""`fashion review` in two scikit-learn projects.

One has ten classes and trials of its recipe; the other has two classes and no probabilities. statsmodels and
scikit-learn are the oracles.
"""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import accuracy_score, recall_score
from statsmodels.stats.contingency_tables import mcnemar

from tests.flowers import PARAMS, Flowers

COMMON = """
import json, sys
import numpy as np
import pandas as pd
import yaml

params = yaml.safe_load(open("params.yaml"))["model"]

def write(names, actual, predicted, **columns):
    table = pd.DataFrame({"actual": names[actual], "predicted": names[predicted], **columns})
    table.to_csv("predictions.csv", index=False)
    json.dump({"accuracy": float((actual == predicted).mean()), "test_set": "fixed"}, open("metrics.json", "w"))
"""
DIGITS = (
    COMMON
    + """
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

images, labels = load_digits(return_X_y=True)
test = np.arange(len(labels)) % 2 == 0

def train(seed):
    forest = RandomForestClassifier(params["trees"], max_depth=6, random_state=seed).fit(images[~test], labels[~test])
    return forest.predict_proba(images[test])

if sys.argv[1:] == ["trials"]:
    wrong = [train(seed).argmax(axis=1) != labels[test] for seed in range(5)]
    errors = [" ".join(map(str, np.flatnonzero(row))) for row in wrong]
    accuracy = [round(1 - row.mean(), 6) for row in wrong]
    table = pd.DataFrame({"variant": "digits", "seed": range(5), "accuracy": accuracy, "errors": errors})
    table.to_csv("trials.csv", index=False)
else:
    found = train(params["seed"])
    write(
        np.array([str(digit) for digit in range(10)]), labels[test], found.argmax(axis=1),
        confidence=found.max(axis=1), probability=found[np.arange(len(found)), labels[test]],
    )
"""
)
CANCER = (
    COMMON
    + """
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import RidgeClassifier

rows, labels = load_breast_cancer(return_X_y=True)
test = np.arange(len(labels)) % 2 == 0
model = RidgeClassifier().fit(rows[~test, : params["columns"]], labels[~test])
write(np.array(["malignant", "benign"]), labels[test], model.predict(rows[test, : params["columns"]]))
"""
)


def create(folder: Path, name: str, train: str, classes: list[str], model: dict[str, Any]) -> Flowers:
    """Return a project, run once, on a branch."""
    project = Flowers(folder)
    project.run("git", "init", "-b", "main")
    project.run("dvc", "init")
    (folder / "train.py").write_text(train)
    has_trials = "trials" in train
    inputs = {"deps": ["train.py"], "params": ["model"]}
    results = {"outs": [{"predictions.csv": {"cache": False}}], "metrics": [{"metrics.json": {"cache": False}}]}
    stages = {"train": {"cmd": "python train.py", **inputs, **results}}
    if has_trials:
        trials = {"outs": [{"trials.csv": {"cache": False}}]}
        stages["trials"] = {"cmd": "python train.py trials", **inputs, **trials}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    files = {"predictions": "predictions.csv", "metrics": "metrics.json", "history": None}
    review = PARAMS["review"] | {
        "test_set": "test_set",
        "min_accuracy": {},
        "classes": classes,
        "models": {name: {**files, "seeds": "trials.csv" if has_trials else None}},
    }
    project.write_params({"model": model, "review": review})
    project.change()
    project.git("checkout", "-b", "work")
    return project


@pytest.fixture(scope="session")
def original_digits(tmp_path_factory: pytest.TempPathFactory) -> Flowers:
    """Ten classes, with 40 trees in base and 8 in head."""
    folder = tmp_path_factory.mktemp("digits")
    project = create(folder, "digits", DIGITS, [str(digit) for digit in range(10)], {"trees": 40, "seed": 0})
    project.change(trees=8)
    return project


@pytest.fixture
def digits(original_digits: Flowers, tmp_path: Path) -> Flowers:
    return original_digits.copy(tmp_path / "copy")


def committed(project: Flowers, revision: str, path: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(project.run("git", "show", f"{revision}:{path}").stdout), dtype=str)


def check_mcnemar(project: Flowers, text: str) -> None:
    """Compare fixed, broken and p in a review of `work` and `main` with statsmodels, the accuracies with sklearn."""
    base, head = (committed(project, revision, "predictions.csv") for revision in ("main", "work"))
    accuracies = [f"{accuracy_score(side['actual'], side['predicted']):.2%}" for side in (base, head)]
    before, after = (side["actual"] == side["predicted"] for side in (base, head))
    expected = mcnemar(pd.crosstab(before, after), exact=True)
    row = re.search(r"\| accuracy \| (\S+) \| (\S+) \|.*: (\d+) fixed, (\d+) broken, p = ([^;]+);", text)
    assert row
    assert [row[1], row[2]] == accuracies
    assert (int(row[3]), int(row[4])) == ((~before & after).sum(), (before & ~after).sum())
    assert float(row[5]) == pytest.approx(expected.pvalue, rel=0.05)


def test_ten_classes(digits: Flowers) -> None:
    done = digits.review("--gate")
    assert done.returncode == 1
    assert done.stderr.startswith("error: digits is significantly worse: ")
    check_mcnemar(digits, done.stdout)
    base, head = (committed(digits, revision, "trials.csv")["accuracy"].astype(float) for revision in ("main", "work"))
    means = (f"{side.mean():.2%} ± {side.std():.2%}" for side in (base, head))
    change = f"{100 * (head.mean() - base.mean()):+.2f} points"
    assert f"| mean accuracy, 5 seeds | {' | '.join(means)} | {change} | **worse**: 95% interval " in done.stdout
    assert "head is more accurate in 0 of 25 pairs of trials" in done.stdout


def test_recall(digits: Flowers) -> None:
    """The changes in recall, against scikit-learn."""
    text = digits.review().stdout
    base, head = (committed(digits, revision, "predictions.csv") for revision in ("main", "work"))
    recalls = [recall_score(side["actual"], side["predicted"], average=None) for side in (base, head)]
    for digit, change in enumerate(recalls[1] - recalls[0]):
        assert f"\n| {digit} | {100 * change:+.2f} points |" in text


def test_gate_by_recipe(digits: Flowers) -> None:
    """Another seed gives a worse model by the same recipe; fewer trees are a worse recipe."""
    digits.git("checkout", "-b", "few", "main")
    digits.change(trees=3)
    accuracies = committed(digits, "few", "trials.csv")["accuracy"].astype(float)
    digits.change(seed=int(accuracies.to_numpy().argmax()))
    digits.git("checkout", "-b", "seed")
    digits.change(seed=int(accuracies.to_numpy().argmin()))
    done = digits.review("--base", "few", "--gate")
    assert done.stderr.startswith("error: digits is significantly worse: ")
    assert re.search(r"\| mean accuracy, 5 seeds \|.*\| - \| unchanged \|", done.stdout)

    judge_recipes(digits)
    done = digits.review("--base", "few", "--gate")
    assert done.returncode == 0, done.stderr
    assert "**digits: unchanged.**" in done.stdout
    done = digits.review("--base", "main", "--gate")
    assert done.stderr.startswith("error: the recipe of digits is significantly worse: -")
    assert "**digits: worse.**" in done.stdout


def judge_recipes(project: Flowers) -> None:
    params = project.params()
    params["review"]["judge"] = "recipe"
    project.write_params(params)


def test_recipe_not_measured(digits: Flowers) -> None:
    """The trials of other params do not count; the gate can require those of the present ones."""
    params = digits.params()
    params["model"]["trees"] = 9
    digits.write_params(params)
    digits.run("dvc", "repro", "train")
    reason = "not measured in the working tree: params.yaml: model changed after the trials; run `dvc repro trials`"
    done = digits.review("--gate")
    assert f"> Recipe of digits: {reason}." in done.stdout
    assert re.search(r"\| mean accuracy, 5 seeds \| \S+ ± \S+ \| - \| - \| not measured \|", done.stdout)

    judge_recipes(digits)
    done = digits.review("--gate")
    assert f"\nthe recipe of digits cannot be compared: {reason}" in done.stderr
    assert "digits: not measured.**" in done.stdout
    params = digits.params()
    params["review"]["waivers"] = {"digits": "no time"}
    digits.write_params(params)
    assert "cannot be compared" not in digits.review("--gate").stderr


def test_two_classes_without_probabilities(tmp_path: Path) -> None:
    project = create(tmp_path, "cancer", CANCER, ["malignant", "benign"], {"columns": 2})
    project.change(columns=30)
    done = project.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**cancer: better.**" in done.stdout
    check_mcnemar(project, done.stdout)
    rows = re.findall(r"^\| \S* \| ([a-z A-Z0-9]+) \|", done.stdout, re.M)
    assert [row for row in rows if row in ("loss", "calibration error", "recipe")] == []
    base = committed(project, "main", "predictions.csv")
    expected = np.mean(recall_score(base["actual"], base["predicted"], average=None))
    assert f"balanced accuracy | {expected:.2%} |" in done.stdout
