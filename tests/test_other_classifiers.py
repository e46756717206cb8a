"""`fashion review` in two scikit-learn projects.

One has ten classes and trials of its recipe; the other has two classes and no probabilities. statsmodels, SciPy and
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
from scipy.stats import ttest_ind
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
    """The images vary far less than the seeds here, so the test of the recipe is close to Welch's."""
    done = digits.review("--gate")
    assert done.returncode == 1
    assert done.stderr.startswith("error: digits is significantly worse: ")
    check_mcnemar(digits, done.stdout)
    base, head = (committed(digits, revision, "trials.csv")["accuracy"].astype(float) for revision in ("main", "work"))
    expected = (
        f"| recipe | {base.mean():.2%} ± {base.std():.2%}, 5 seeds | {head.mean():.2%} ± {head.std():.2%}, 5 seeds "
    )
    assert f"{expected}| {100 * (head.mean() - base.mean()):+.2f} points | **worse**: 95 % interval " in done.stdout
    assert "head is more accurate in 0 of 25 pairs of trials" in done.stdout
    assert ttest_ind(base, head, equal_var=False).pvalue < 0.05


def test_recall(digits: Flowers) -> None:
    """The changes in recall, against scikit-learn."""
    text = digits.review().stdout
    base, head = (committed(digits, revision, "predictions.csv") for revision in ("main", "work"))
    recalls = [recall_score(side["actual"], side["predicted"], average=None) for side in (base, head)]
    for digit, change in enumerate(recalls[1] - recalls[0]):
        assert f"\n| {digit} | {100 * change:+.2f} points |" in text


def test_gate_by_recipe(digits: Flowers) -> None:
    """Another seed gives a worse model, but it is the same recipe; fewer trees are a worse one."""
    digits.git("checkout", "main")
    params = digits.params()
    params["review"]["judge"] = "recipe"
    digits.write_params(params)
    digits.git("commit", "-am", "judge recipes")
    digits.git("checkout", "-b", "fewer")
    digits.change(trees=8)
    assert "error: the recipe of digits is significantly worse: -" in digits.review("--gate").stderr
    digits.git("checkout", "-b", "seed", "main")
    digits.change(trees=30, seed=1)
    done = digits.review("--gate")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| recipe \|.*\*\*within noise\*\*.*a change of this size is significant ", done.stdout)


def test_recipe_not_measured(digits: Flowers) -> None:
    """The trials of other params do not count, nor do those that somebody edited."""
    params = digits.params()
    params["review"]["judge"] = "recipe"
    params["model"]["trees"] = 9
    digits.write_params(params)
    digits.run("dvc", "repro", "train")
    done = digits.review("--gate")
    reason = "not measured in the working tree (changed since the trials: params.yaml: model); run `dvc repro trials`"
    assert f"> Recipe of digits: {reason}." in done.stdout
    assert re.search(r"\| recipe \| \S+ ± \S+, 5 seeds \| - \| - \| not measured \|", done.stdout)
    assert f"\nthe recipe of digits cannot be compared: {reason}\n" in done.stderr

    digits.run("dvc", "repro")
    trials = digits.folder / "trials.csv"
    trials.write_text(trials.read_text().replace("digits,0,", "digits,7,"))
    assert "not measured in the working tree (trials.csv is not what dvc.lock records)" in digits.review().stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("variant,seed\ndigits,1\n", "is not a table of trials: KeyError('accuracy')"),
        ("variant,seed,accuracy,errors\ndigits,1,0.5,9999\n", "is not a table of trials: IndexError("),
        ("variant,seed,accuracy,errors\ndigits,1,0.5,a b\n", "is not a table of trials: ValueError("),
        ("variant,seed,accuracy,errors\ndigits,1,0.5,1 2\n", "trials.csv has 1 trials of it, expected at least 3"),
        ("variant,seed,accuracy\n" + "digits,1,0.5\n" * 3, "does not say which test images each trial misclassifies"),
        ("variant,seed,accuracy,errors\n" + "digits,1,0.5,1\n" * 3, "does not say which test images each trial"),
    ],
)
def test_bad_trials(digits: Flowers, content: str, message: str) -> None:
    (digits.folder / "trials.csv").write_text(content)
    done = digits.review()
    assert message in (done.stderr or done.stdout)


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
