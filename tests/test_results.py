"""The committed results for Fashion-MNIST, and the documentation that quotes them.

A project with other images deletes this file with those results (docs/extend.md). Another processor gives slightly
different results, so a page may quote the committed ones or those in this folder.
"""

import csv
import io
import json
import math
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import benchmarks.report
import studies.ablation.summary
import studies.ladder.summary
import studies.transfer.summary
from fashion.data import inspection
from fashion.dvc import Lock
from fashion.evaluation import results, significance
from fashion.evaluation.predictions import Predictions
from fashion.files import read_json
from fashion.params import load_params
from fashion.review import gate, report
from fashion.review.compare import compare
from fashion.review.data_changes import Data
from fashion.review.rules import Rules
from fashion.review.snapshot import Model, Snapshot, TestSet, scored
from fashion.review.trials import Trials
from fashion.validation import read_yaml, validated
from studies.gate import pairs
from studies.ladder import train
from tests.conftest import ROOT, Project
from tests.test_docs import RESULTS, read_page

ABLATION, LADDER, TRANSFER = (ROOT / "studies" / name for name in ("ablation", "ladder", "transfer"))

Read = Callable[[str], str]  # from the path of a result file to its content


def test_deleted_files() -> None:
    """`fashion dataset` and tests/test_docs.py list the same files."""
    listed = subprocess.run(
        ["git", "ls-files", *shlex.split(inspection.RESULTS)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "tests/test_results.py" in listed
    assert [path for path in listed if not re.fullmatch(RESULTS, path)] == []
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert [path for path in set(kept) - set(listed) if re.fullmatch(RESULTS, path)] == []


@pytest.mark.slow
def test_deletion(copied: Project) -> None:
    """After the commands of docs/extend.md, the remaining code imports and lints."""
    blocks = re.findall(r"```sh\n(git rm -rq studies.*?)```", read_page("docs/extend.md"), re.S)
    assert blocks[0] == f"git rm -rq {inspection.RESULTS}\n"
    (copied.folder / "reports" / "benchmarks.json").touch()
    copied.run("git", "add", "reports/benchmarks.json")
    collect = ["pytest", "--collect-only", "-qm", ""]
    checks = [[collect], [["ruff", "check"], ["lint-imports", "--no-logo"], collect]]
    for commands, block_checks in zip(blocks, checks, strict=True):
        copied.run("sh", "-euc", commands.replace("git rm -rq", "git rm -rqf"))  # the file is not committed
        for check in block_checks:
            copied.run(*check)
    assert copied.run("python", "-m", "fashion.dvc_deps").stdout == ""
    assert not (copied.folder / "studies" / "seeds").exists()


def test_benchmarks() -> None:
    found = read_json(ROOT / "reports/benchmarks.json")
    assert benchmarks.report.markdown(found) == (ROOT / "reports/benchmarks.md").read_text()


def test_ablation() -> None:
    table = pd.read_csv(ABLATION / "table.csv", index_col="variant")
    assert sorted(table.index) == sorted(read_yaml(ABLATION / "params.yaml")["variants"])
    assert set(table["seeds"]) == {5}
    assert studies.ablation.summary.markdown(table) in (ABLATION / "README.md").read_text()


def test_ladder() -> None:
    """For each model, the last step has the project's params."""
    params = load_params(ROOT / "params.yaml")
    study = validated(train.Study, read_yaml(LADDER / "params.yaml"), "ladder")
    last = {model: values for model, _, values in train.settings(study)}
    for model, values in last.items():
        own = params.models[model]
        assert {**values, "seed": own["seed"]} == {**own, "network": model}


def test_tour() -> None:
    """It has the study's table of each model, and explains each step."""
    parts = read_page("docs/tour.md").split("\n## ")[1:]
    tables = studies.ladder.summary.markdown(pd.read_csv(LADDER / "table.csv")).split("\n\n")
    steps = read_yaml(LADDER / "params.yaml")["steps"].values()
    for part, table, names in zip(parts[: len(tables)], tables, steps, strict=True):
        assert table in part
        assert re.findall(r"\*\*([a-z0-9-]+)\*\*", part) == list(names)


def test_transfer() -> None:
    table = pd.read_csv(TRANSFER / "table.csv", dtype={"images": str})
    tables = studies.transfer.summary.markdown(table, read_json(TRANSFER / "comparison.json"))
    assert tables in (TRANSFER / "README.md").read_text()
    trained = pd.read_csv(TRANSFER / "results.csv", dtype={"images": str})
    means = trained.groupby(["method", "images"])["accuracy"].mean()
    np.testing.assert_allclose(table.set_index(["method", "images"]).loc[means.index, "accuracy"], means, rtol=1e-3)


def test_readme_table(tmp_path: Path) -> None:
    """It has the committed results, or those of this machine."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "committed")], check=True)
    tables = [results.markdown(results.read(folder)) for folder in (tmp_path / "committed", ROOT)]
    readme = read_page("README.md")
    assert any(table in readme for table in tables), f"paste into README.md what `fashion results` prints:\n{tables[1]}"


def is_part(part: Any, whole: Any) -> bool:
    if not isinstance(part, dict):
        return bool(part == whole)
    return isinstance(whole, dict) and all(key in whole and is_part(value, whole[key]) for key, value in part.items())


def test_readme_excerpt() -> None:
    (excerpt,) = re.findall(r"```yaml\n(.*?)```", read_page("README.md"), re.S)
    assert is_part(yaml.safe_load(excerpt), read_yaml(ROOT / "params.yaml"))


def read_committed(path: str) -> str:
    return subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def benchmarks_of(read: Read) -> dict[str, Any]:
    machines: dict[str, dict[str, Any]] = json.loads(read("reports/benchmarks.json"))
    return machines["bfloat16"]


def export_results(read: Read) -> dict[str, Any]:
    return {name: json.loads(read(f"reports/{name}/export.json")) for name in ("dnn", "cnn")}


def results_numbers(read: Read) -> Iterator[str]:
    export = export_results(read)
    for name, found in export.items():
        first = f"| {name.upper()} "
        for key, title in {"keras": "Keras", "float32": "LiteRT, float32", "int8": "LiteRT, int8"}.items():
            scores = found[key]
            yield (
                f"{first}| {title} | {scores['bytes'] / 1000:,.0f} kB | {scores['accuracy']:.2%} "
                f"| {scores['loss']:.3f} | {scores['calibration_error']:.1%} |"
            )
            first = "| "
    dnn, cnn = (found["temperature"] for found in export.values())
    yield f"{dnn:.2f} for the DNN and {cnn:.2f} for the CNN"
    dnn, cnn = re.findall(r"is correct on ([\d.]+%)", read("reports/MODEL_CARD.md"))[:2]
    yield f"the DNN classifies {dnn} correctly and the CNN {cnn}"

    benchmarks = benchmarks_of(read)
    runs = benchmarks["time_to_accuracy"]
    seconds = {name: statistics.median(run["seconds"] for run in runs[name]) for name in runs}
    accuracy = statistics.mean(run["accuracy"] for run in runs["tutorial"])
    yield f"takes {seconds['tutorial']:.0f} s and reaches a test accuracy of {accuracy:.1%}"
    yield f"takes {1 - benchmarks['utilisation']['cnn']['step_relative_to_keras']:.0%} less time in bfloat16"
    minutes, ratio = benchmarks["deep"]["seconds"] / 60, benchmarks["train_time_ratio"]["deep"]
    yield f"about {minutes:.0f} minutes, {ratio:.1f} times the T_ref"
    accuracies = [float(row["accuracy"]) for row in csv.DictReader(read("studies/deep/trials.csv").splitlines())]
    yield f"test accuracy is {statistics.mean(accuracies):.2%} ± {statistics.stdev(accuracies):.2%} over three seeds"
    questions = {"seeds": "How much does the seed change the accuracy?", "deep": "a larger CNN?"}
    questions |= {"ladder": "from a plain network add?", "ablation": "What does each technique contribute?"}
    for study, question in questions.items():
        trials = csv.DictReader(read(f"studies/{study}/trials.csv").splitlines())
        lengths = [float(row["seconds"]) for row in trials]
        rounds = math.ceil(len(lengths) / 2)  # one trial per core
        yield f"{question} | about {rounds * statistics.mean(lengths) / 60:.0f} minutes"

    ablation = {row["variant"]: row for row in csv.DictReader(read("studies/ablation/table.csv").splitlines())}
    yield f"Muon gains the most: {-float(ablation['adam']['points']):.1f} points of validation accuracy"
    yield f"Hard-example mining gains {-float(ablation['no-hard-examples']['points']):.1f} points"
    if abs(float(ablation["float32"]["points"])) <= float(ablation["float32"]["points_interval"]):
        yield "bfloat16 has no significant effect on the accuracy"
    yield f"makes training {float(ablation['float32']['time']):.1f} times as fast"

    for name in ("dnn", "cnn"):
        searched = list(csv.DictReader(read(f"reports/tune/{name}.csv").splitlines()))
        confirmed: dict[str, list[dict[str, str]]] = {}
        for row in searched:
            if row["seed"] != searched[0]["seed"]:
                confirmed.setdefault(row["trial"], []).append(row)
        times = {trial: statistics.mean(float(row["seconds"]) for row in same) for trial, same in confirmed.items()}
        for trial, same in confirmed.items():
            values = [float(row["val_accuracy"]) for row in same]
            mean, deviation = statistics.mean(values), 100 * statistics.stdev(values)
            yield f"| {mean:.2%} ± {deviation:.2f} | {times[trial] / times['0']:.2f} |"

    gains = json.loads(read("studies/transfer/comparison.json"))["differences"]
    few, more = (100 * gains[images]["mean"] for images in ("10", "100"))
    yield f"the CNN by {few:.1f} points with 10 images per class and by {more:.1f} with 100"
    rows = csv.DictReader(read("studies/transfer/table.csv").splitlines())
    best = next(row for row in rows if (row["method"], row["images"]) == ("finetuned", "all"))
    accuracy, ratio = float(best["accuracy"]), float(best["ratio"])
    yield f"fine-tuning reaches {accuracy:.1%} in {ratio:.1f} times the CNN's processor time"


def scale_numbers(read: Read) -> Iterator[str]:
    trials = benchmarks_of(read)["trials"]
    pairs = {way: statistics.median(seconds) for way, seconds in trials["side_by_side"]["seconds"].items()}
    ratio = pairs["one after the other"] / pairs["side by side"]
    yield f"two CNN trials side by side with one thread each is {ratio:.1f} times as fast"
    runs = {(run["trials"], run["nodes"]): run["seconds"] for run in trials["growth"]["runs"]}
    for count in (2, 4, 8):
        yield f"| {count} | {runs[count, 1]:.0f} s | {runs[count, 2]:.0f} s |"
    table = read("reports/benchmarks.md").partition("| Nodes | Time, min |")[2].partition("\n## ")[0]
    minutes = dict(re.findall(r"^\| (\d+) \| (\d+) \|", table, re.M))
    yield f"would take {minutes['1']} minutes on one such node, {minutes['10']} on ten and {minutes['100']} on 100"


def serving_numbers(read: Read) -> Iterator[str]:
    dnn, cnn = export_results(read).values()
    yield f"the predicted class of {dnn['int8']['label_changes']} (DNN) and {cnn['int8']['label_changes']} (CNN)"
    largest = max(results["float32"]["largest_difference"] for results in (dnn, cnn))
    yield f"largest difference is {largest:.7f}"
    yield f"the detector rejects {dnn['ood_rate']:.1%} with the DNN and {cnn['ood_rate']:.1%} with the CNN"

    benchmarks = benchmarks_of(read)
    serving, load = benchmarks["serving"], benchmarks["load_test"]
    seconds = {name: statistics.median(times) for name, times in serving["first_prediction_seconds"].items()}
    ours, keras = (f"{seconds[name]:.2f} s" for name in ("fashion predict", "Keras"))
    yield f"takes {ours} including process start-up; with the Keras model, {keras}"
    dnn, cnn = (f"{serving['images'] / min(serving['bulk_seconds'][name]):,.0f}" for name in ("dnn", "cnn"))
    yield f"{serving['images']:,} PNG files in one call: {dnn} images per second with the DNN and {cnn} with the CNN"
    yield f"{load['clients']} clients of `fashion demo` at once, for {load['seconds']} seconds"
    yield f"of {load['requests']:,} requests, {load['failed']} failed"
    median, high, largest = (load["latency_seconds"][key] for key in ("median", "95 %", "largest"))
    yield f"{median:.2f} s (median), {high:.2f} s (95th percentile) and at most {largest:.2f} s"

    yield from re.findall(r"```python\n.*?```", read("reports/MODEL_CARD.md"), re.S)  # whose test runs them


def review_rows(
    read: Read,
    changes: dict[str, tuple[int, int, int]],
    variants: dict[str, tuple[str, str | None]],
    study: str = "studies/gate/changes.csv",
) -> Iterator[str]:
    """Yield the verdict, the gate's failures and the rows of accuracies and recipes.

    Args:
        read: reads a result file.
        changes: by model, the number of correct predictions in base, and how many are fixed and broken in head.
        variants: of `study`, those with the recipe of base and of head, by model; None if it was not measured.
        study: trials.
    """
    trials = pairs.read(io.StringIO(read(study)), 10_000)
    test_set = TestSet("md5", None, None, None)
    rules = rules_of({"models": {name: {} for name in changes}, "classes": ["right", "wrong"]})

    def model(correct: np.ndarray, variant: str | None) -> Model:
        probabilities = np.where(correct[:, None], [0.9, 0.1], [0.1, 0.9])
        predictions = Predictions.of(probabilities, np.zeros(10_000, np.uint8), rules.classes)
        measured = Trials(trials[variant]) if variant else Trials(None, "not run")
        return scored(Model({}, None, None, None, measured), predictions, rules)

    base, head = {}, {}
    for name, (count, fixed, broken) in changes.items():
        order = np.arange(10_000)
        before, after = variants.get(name, (name, name))
        base[name] = model(order < count, before)
        head[name] = model((order >= broken) & (order < count + fixed), after)
    lock = Lock({})
    snapshots = (
        Snapshot(name, name, rules, lock, Data({}, {}), test_set, models, (), (), rebuilt=False, own_rules=True)
        for name, models in {"base": base, "head": head}.items()
    )
    result = compare(*snapshots)
    failures = gate.failures(result)
    lines = report.markdown(result, failures, {}).splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("###"))]
    shown = ("| accuracy |", "| mean accuracy, ")
    yield from (f"> {line}" for line in table if line.startswith("**") or any(part in line for part in shown))
    yield from (f"> - {line}" for line in failures)


def rules_of(section: dict[str, Any]) -> Rules:
    files = {"predictions": "p.npy", "metrics": "m.json", "history": None, "seeds": None}
    models = {name: {**files, **given} for name, given in section["models"].items()}
    review = read_yaml(ROOT / "params.yaml")["review"]
    return validated(Rules, {"calibration_bins": 15, "waivers": {}, **review, **section, "models": models}, "review")


def readme_numbers(read: Read) -> Iterator[str]:
    benchmarks = benchmarks_of(read)
    yield f"takes {statistics.median(benchmarks['serving']['first_prediction_seconds']['fashion predict']):.2f} s"
    changes = {"dnn": (9184, 86, 183), "cnn": (9459, 0, 0)}
    yield from review_rows(read, changes, {"dnn": ("dnn", None)}, "studies/seeds/trials.csv")


def docs_review_numbers(read: Read) -> Iterator[str]:
    momentum = review_rows(read, {"cnn": (9401, 188, 146)}, {"cnn": ("cnn", "cnn-more-momentum")})
    yield from (line for line in momentum if line.startswith("> |"))
    for row in csv.DictReader(read("studies/gate/failures.csv").splitlines()):
        yield f"| {row['change']} | {float(row['model']):.1%} | {float(row['recipe']):.1%} |"
    for row in csv.DictReader(read("studies/gate/coverage.csv").splitlines()):
        rates = f"{float(row['random_effects']):.1%} | {float(row['bootstrap']):.1%} |"
        yield f"| {row['change']} | {row['seeds']} | {rates}"
    rows = [row for row in csv.DictReader(read("studies/gate/pairs.csv").splitlines()) if row["base"] == row["head"]]
    pairs, different = (sum(int(row[key]) for row in rows for key in keys) for keys in (["pairs"], ["better", "worse"]))
    assert different == 0
    yield f"finds no difference in any of {pairs} pairs that differ only in the seed"
    (row,) = (
        row
        for row in csv.DictReader(read("studies/gate/pairs.csv").splitlines())
        if row["head"] == "cnn-more-momentum" and row["base"] == "cnn"
    )
    assert row["better"] == "0"
    yield f"the new recipe wins only {row['wins']} of {row['pairs']} pairs"
    yield f"among the {row['pairs']} pairs for this change in `studies/gate/pairs.csv`, McNemar's test calls"
    yield f"the new model better in none and worse in {row['worse']}"


NUMBERS = {
    "README.md": readme_numbers,
    "docs/results.md": results_numbers,
    "docs/review.md": docs_review_numbers,
    "docs/scale.md": scale_numbers,
    "docs/serving.md": serving_numbers,
}


def test_review_example() -> None:
    """The review of two commits in docs/review.md; a shallow clone lacks them."""
    text = read_page("docs/review.md")
    (command,) = re.findall(r"^fashion (review --base \w{7} --head \w{7})$", text, re.M)
    _, _, base, _, head = command.split()
    for commit in (base, head):
        if subprocess.run(["git", "cat-file", "-e", commit], cwd=ROOT, capture_output=True, check=False).returncode:
            pytest.skip(f"this clone has no commit {commit}")
    done = subprocess.run(
        [sys.executable, "-m", "fashion.cli", *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    table = done.stdout.partition("\n\n")[2].partition("\n\n\n")[0]
    assert "\n".join(f"> {line}".rstrip() for line in table.splitlines()) in text


@pytest.mark.parametrize("page", NUMBERS)
def test_numbers(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "RESAMPLES", 50)  # the intervals are not compared
    text = " ".join(read_page(page).split())

    def missing(read: Read) -> list[str]:
        return [quote for quote in NUMBERS[page](read) if " ".join(quote.split()) not in text]

    found = missing(read_committed)
    assert not found or not missing(read_page), f"{page} lacks or misquotes: {found}"
