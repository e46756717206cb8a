"""The documentation: links, names and numbers are right.

Another processor gives slightly different results, so a page may quote the committed ones or those in this folder.
"""

import csv
import json
import re
import statistics
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

import fashion
from fashion.dvc import Lock
from fashion.evaluation import significance
from fashion.params import load_params
from fashion.review import gate, report
from fashion.review.compare import compare
from fashion.review.rules import Rules
from fashion.review.snapshot import Model, Snapshot, TestSet
from fashion.validation import read_yaml, validated
from tests.conftest import MODELS, ROOT

Read = Callable[[str], str]  # from the path of a result file to its content

PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.M))
COMMANDS = (ROOT / "fashion" / "cli.py").read_text()
OUTPUTS = Lock.read(ROOT).outputs
FOLDERS = {"data", "models", *(path.name for path in ROOT.iterdir() if path.is_dir())}
EXAMPLE = "logistic"  # docs/extend.md adds this model


def read_page(page: str) -> str:
    return (ROOT / page).read_text()


def code(page: str) -> Iterator[str]:
    """Yield the code spans and the lines of the code blocks of a page."""
    for token in MarkdownIt().enable("table").parse(read_page(page)):
        if token.type == "fence":
            yield from token.content.splitlines()
        yield from (child.content for child in token.children or () if child.type == "code_inline")


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", read_page(page), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "tests/photos/README.md", "reports/MODEL_CARD.md"])
def test_links(page: str) -> None:
    text = re.sub(r"```.*?```", "", read_page(page), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = (ROOT / page).parent.joinpath(name).resolve() if name else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in anchors(str(target.relative_to(ROOT))), link


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str) -> None:
    for line in code(page):
        command = line.split("# ")[0].removeprefix("$ ")
        for target in re.findall(r"(?:^|&& )make ([a-z][a-z-]*)", command):
            assert any(target in targets.split() for targets in TARGETS), line
        for name, options in re.findall(r"^fashion ([a-z]+)(.*)", command):
            assert f'"{name}"' in COMMANDS, line
            assert all(f'"{option}"' in COMMANDS for option in re.findall(r"--[a-z-]+", options)), line


@pytest.mark.parametrize("page", PAGES)
def test_params(page: str) -> None:
    values = read_yaml(ROOT / "params.yaml")
    values["models"] = load_params(ROOT / "params.yaml").models  # with the keys of `training`
    for line in code(page):
        names = [line] if re.fullmatch(r"[a-z]+(\.[a-z_A-Z]+)+", line) else re.findall(r"--set-param \+?([\w.]+)", line)
        for name in names:
            section, *keys = name.replace("NAME", MODELS[-1]).split(".")
            if section in values and keys[-1] not in ("yml", "html", EXAMPLE):
                value = values[section]
                for key in keys:
                    value = value.get(key, {}) if isinstance(value, dict) else {}
                assert value != {}, name


@pytest.mark.parametrize("page", PAGES)
def test_paths(page: str) -> None:
    for line in code(page):
        path = line.replace("NAME", MODELS[-1]).rstrip("/")
        if re.fullmatch(r"[\w.*{},/-]+", path) and path.split("/")[0] in FOLDERS and EXAMPLE not in path:
            choices = re.search(r"\{(.*)\}", path)
            for choice in choices[1].split(",") if choices else [""]:
                name = re.sub(r"\{.*\}", choice, path)
                assert any(ROOT.glob(name)) or any(f"{out}/".startswith(f"{name}/") for out in OUTPUTS), line


def read_committed(path: str) -> str:
    return subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def export_results(read: Read) -> dict[str, Any]:
    return {name: json.loads(read(f"reports/{name}/export.json")) for name in ("dnn", "cnn")}


def results_numbers(read: Read) -> Iterator[str]:
    export = export_results(read)
    for name, results in export.items():
        first = f"| {name.upper()} "
        for key, title in {"keras": "Keras", "float32": "LiteRT, float32", "int8": "LiteRT, int8"}.items():
            scores = results[key]
            yield (
                f"{first}| {title} | {scores['bytes'] / 1000:,.0f} kB | {scores['accuracy']:.2%} "
                f"| {scores['loss']:.3f} | {scores['calibration_error']:.1%} |"
            )
            first = "| "
    dnn, cnn = (results["temperature"] for results in export.values())
    yield f"{dnn:.2f} for the DNN and {cnn:.2f} for the CNN"
    dnn, cnn = re.findall(r"is correct on ([\d.]+%)", read("reports/MODEL_CARD.md"))[:2]
    yield f"the DNN is correct on {dnn} of the test images and the CNN on {cnn}"

    benchmarks = json.loads(read("reports/benchmarks.json"))
    runs = benchmarks["time_to_accuracy"]
    seconds = {name: statistics.median(run["seconds"] for run in runs[name]) for name in runs}
    accuracy = statistics.mean(run["accuracy"] for run in runs["tutorial"])
    yield f"takes {seconds['tutorial']:.0f} s and reaches a test accuracy of {accuracy:.1%}"
    minutes, ratio = benchmarks["deep"]["seconds"] / 60, benchmarks["train_time_ratio"]["deep"]
    yield f"about {minutes:.0f} minutes, {ratio:.1f} T_ref"
    yield f"What does a larger CNN reach? | about {3 * minutes:.0f} minutes |"
    yield f"change the accuracy? | about {5 * (seconds['dnn'] + seconds['cnn']) / 60:.0f} minutes |"

    ablation = {row["variant"]: row for row in csv.DictReader(read("studies/ablation/table.csv").splitlines())}
    yield f"Muon gains the most: {-float(ablation['adam']['points']):.1f} points of validation accuracy"
    yield f"Hard-example mining gains {-float(ablation['no-hard-examples']['points']):.1f} points"
    yield f"bfloat16 costs {float(ablation['float32']['points']):.1f} points"
    yield f"makes training {float(ablation['float32']['time']):.1f} times as fast"

    gains = json.loads(read("studies/transfer/comparison.json"))["differences"]
    few, more = (100 * gains[images]["mean"] for images in ("10", "100"))
    yield f"the CNN by {few:.1f} points with 10 images per class and by {more:.1f} with 100"
    rows = csv.DictReader(read("studies/transfer/table.csv").splitlines())
    best = next(row for row in rows if (row["method"], row["images"]) == ("finetuned", "all"))
    yield f"it reaches {float(best['accuracy']):.1%} in {float(best['ratio']):.1f} T_ref"


def serving_numbers(read: Read) -> Iterator[str]:
    dnn, cnn = export_results(read).values()
    yield f"the label of {dnn['int8']['label_changes']} (DNN) and {cnn['int8']['label_changes']} (CNN)"
    largest = max(results["float32"]["largest_difference"] for results in (dnn, cnn))
    yield f"largest difference is {largest:.7f}"
    yield f"the detector rejects {dnn['ood_rate']:.1%} with the DNN and {cnn['ood_rate']:.1%} with the CNN"

    benchmarks = json.loads(read("reports/benchmarks.json"))
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


def review_rows(read: Read, changes: dict[str, tuple[int, int, int]]) -> Iterator[str]:
    """Yield the verdict, the gate's failures and the rows of accuracy.

    Args:
        read: reads a result file.
        changes: by model, the number of correct predictions in base, and how many are fixed and broken in head.
    """
    seeds = {
        name: tuple(json.loads(read(f"studies/seeds/{name}-{seed}/metrics.json"))["accuracy"] for seed in range(1, 6))
        for name in changes
    }
    test_set = TestSet("md5", np.zeros(10_000, np.uint8), None)

    def model(name: str, correct: np.ndarray) -> Model:
        predictions = np.where(correct[:, None], [0.9, 0.1], [0.1, 0.9])
        return Model({}, predictions, None, seeds[name])

    base, head = {}, {}
    for name, (count, fixed, broken) in changes.items():
        order = np.arange(10_000)
        base[name] = model(name, order < count)
        head[name] = model(name, (order >= broken) & (order < count + fixed))
    rules = rules_of({"models": {name: {} for name in changes}, "classes": ["right", "wrong"]})
    lock = Lock({})
    snapshots = (
        Snapshot(name, name, rules, lock, test_set, models, (), (), rebuilt=False).on(test_set)
        for name, models in {"base": base, "head": head}.items()
    )
    result = compare(*snapshots)
    failures = gate.failures(result)
    lines = report.markdown(result, failures, {}).splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("###"))]
    yield from (f"> {line}" for line in table if line.startswith("**") or "| accuracy |" in line)
    yield from (f"> - {line}" for line in failures)


def rules_of(section: dict[str, Any]) -> Rules:
    files = {"predictions": "p.npy", "metrics": "m.json", "history": None, "seeds": None}
    models = {name: {**files, **given} for name, given in section["models"].items()}
    review = read_yaml(ROOT / "params.yaml")["review"]
    return validated(Rules, {"calibration_bins": 15, **review, **section, "models": models}, "review")


def readme_numbers(read: Read) -> Iterator[str]:
    benchmarks = json.loads(read("reports/benchmarks.json"))
    yield f"takes {statistics.median(benchmarks['serving']['first_prediction_seconds']['fashion predict']):.2f} s"
    yield from review_rows(read, {"dnn": (9142, 168, 229), "cnn": (9417, 0, 0)})


def docs_review_numbers(read: Read) -> Iterator[str]:
    yield from review_rows(read, {"dnn": (9063, 297, 218), "cnn": (9382, 186, 151)})


NUMBERS = {
    "README.md": readme_numbers,
    "docs/results.md": results_numbers,
    "docs/review.md": docs_review_numbers,
    "docs/serving.md": serving_numbers,
}


@pytest.mark.parametrize("page", NUMBERS)
def test_numbers(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "RESAMPLES", significance.BATCH)  # the intervals are not compared
    text = " ".join(read_page(page).split())

    def missing(read: Read) -> list[str]:
        return [quote for quote in NUMBERS[page](read) if " ".join(quote.split()) not in text]

    found = missing(read_committed)
    assert not found or not missing(read_page), f"{page} lacks or misquotes: {found}"


def is_part(part: Any, whole: Any) -> bool:
    if not isinstance(part, dict):
        return bool(part == whole)
    return isinstance(whole, dict) and all(key in whole and is_part(value, whole[key]) for key, value in part.items())


def test_readme_excerpt() -> None:
    (excerpt,) = re.findall(r"```yaml\n(.*?)```", read_page("README.md"), re.S)
    assert is_part(yaml.safe_load(excerpt), read_yaml(ROOT / "params.yaml"))


def test_review_section() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", read_page("docs/review.md"), re.S)
    validated(Rules, yaml.safe_load(example)["review"], "docs/review.md")


def test_reproducibility() -> None:
    text = read_page("docs/reproducibility.md")
    assert all(f"`{prefix}*`" in text or f"`{prefix}`" in text for prefix in fashion.UNSET_PREFIXES)
    machines = (ROOT / ".ci" / "machines").read_text()
    cases = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", text, re.M)))
    assert len(cases) > 10
    assert all(re.search(rf"^{case}\(\)", machines, re.M) for case in cases)
