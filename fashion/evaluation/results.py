"""The table of results in the README and in `fashion results`, read from reports/ and studies/."""

import csv
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fashion.dvc import Lock, git, md5
from fashion.errors import UserError
from fashion.files import read_json
from fashion.validation import look_up, merged, read_yaml

MACRO_METRICS = ("Balanced accuracy", "Macro F1")  # of the last run; columns only if the classes are unequal in size
NONE = "-"
SEEDS = "seeds"  # the study of the params in params.yaml


@dataclass(frozen=True)
class Result:
    """The results of one model.

    Attributes:
        name: name of the model.
        parameters: number of its weights.
        inference_flops: floating-point operations of a prediction for one image, if they were counted.
        accuracies: test accuracy by seed; empty if no study trained it.
        train_time_ratios: training time relative to the tutorial CNN's, by the precision of the machines on which it
            was measured.
        train_time_commits: the commit of each of these ratios whose params have changed since, by precision.
        last_run: metrics of the root pipeline, as the evaluate stage writes them, if it trains this model.
        commit: of the accuracies, if the code, data or params of their training runs have changed since.
    """

    name: str
    parameters: int
    inference_flops: int | None
    accuracies: Mapping[int, float]
    train_time_ratios: Mapping[str, float]
    train_time_commits: Mapping[str, str]
    last_run: Mapping[str, Any] | None
    commit: str | None

    @property
    def accuracy_mean(self) -> float | None:
        """Mean over the seeds, if there are any."""
        return statistics.mean(self.accuracies.values()) if self.accuracies else None

    @property
    def accuracy_std(self) -> float | None:
        """Sample standard deviation over the seeds, if there are at least two."""
        return statistics.stdev(self.accuracies.values()) if len(self.accuracies) > 1 else None


def read(root: Path) -> list[Result]:
    """Return the results of the project at `root`, sorted by accuracy.

    They are in reports/NAME/metrics.json of the models in params.yaml, in studies/STUDY/trials.csv and in
    reports/benchmarks.json. Those of studies and benchmarks on another data set are left out. A variant of
    studies/seeds keeps its name; that of another study becomes STUDY/VARIANT if a model in params.yaml or a variant of
    a third study has the same name.

    Raises:
        UserError: `root` is not a project or has no results.
    """
    params = read_yaml(root / "params.yaml")
    reports = {name: root / "reports" / name / "metrics.json" for name in params.get("models") or {}}
    runs = {name: read_json(path) for name, path in reports.items() if path.exists()}
    variants: dict[str, dict[str, list[Trial]]] = {}
    for trial in _trials(root, params):
        variants.setdefault(trial.variant, {}).setdefault(trial.study, []).append(trial)
    studied = {
        variant if study == SEEDS or (len(studies) == 1 and variant not in reports) else f"{study}/{variant}": trials
        for variant, studies in variants.items()
        for study, trials in studies.items()
    }
    if not runs and not studied:
        raise UserError("there are no results yet; run `make`")
    ratios, commits = _train_times(root, params)
    results = []
    for name in runs | studied:
        trials = sorted(studied.get(name, []), key=lambda trial: trial.seed)
        cost = runs[name] if name in runs else asdict(trials[0])
        results.append(
            Result(
                name,
                parameters=cost["parameters"],
                inference_flops=cost.get("inference_flops"),
                accuracies={trial.seed: trial.accuracy for trial in trials},
                train_time_ratios=ratios.get(name, {}),
                train_time_commits=commits.get(name, {}),
                last_run=runs.get(name),
                commit=next((trial.commit for trial in trials if trial.commit), None),
            )
        )
    return sorted(results, key=lambda result: (_best_known(result), result.name))


def _train_times(
    root: Path, params: Mapping[str, Any]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, str]]]:
    """Return the ratios of the training times and the commits of outdated ones, by model and precision."""
    path = root / "reports" / "benchmarks.json"
    machines = read_json(path) if path.exists() else {}
    ratios: dict[str, dict[str, float]] = {}
    commits: dict[str, dict[str, str]] = {}
    current = train_recipes(root, params) if machines else {}
    for precision, one in machines.items():
        if one["dataset"] != params["dataset"]["name"]:
            continue
        recorded = one.get("recipes", {})
        for name, ratio in one["train_time_ratio"].items():
            ratios.setdefault(name, {})[precision] = ratio
            if name in current and recorded.get(name) != current[name]:
                part = one["deep"] if name == "deep" and "deep" in one else one["machine"]
                commits.setdefault(name, {})[precision] = part["commit"]
    return ratios, commits


def train_recipes(root: Path, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the params that each model in params.yaml, and each variant in studies/, is trained with.

    The seed and the test-time augmentation are left out: they do not change the training time.
    """
    models = {name: merged(params["training"], own) for name, own in params["models"].items()}
    found = dict(models)
    for path in sorted(root.glob("studies/*/params.yaml")):
        study = read_yaml(path)
        for name, changes in (study.get("variants") or {}).items():
            own = merged(study.get("all") or {}, changes)
            if own.get("model") in models:
                found.setdefault(name, merged(models[own["model"]], own))
    left_out = ("seed", "test_time_augmentation")
    return {name: {key: one for key, one in values.items() if key not in left_out} for name, values in found.items()}


@dataclass(frozen=True)
class Trial:
    """A trial of a study.

    Attributes:
        study: name of the study.
        variant: name of the variant of the recipe.
        seed: of the training.
        accuracy: on the test set.
        parameters: number of weights.
        inference_flops: floating-point operations of a prediction for one image, if they were counted.
        commit: that made it, if the code, the data or the params have changed since.
    """

    study: str
    variant: str
    seed: int
    accuracy: float
    parameters: int
    inference_flops: int | None
    commit: str | None


def _trials(root: Path, params: Mapping[str, Any]) -> Iterator[Trial]:
    """Yield the trials that have a test accuracy, of the studies that DVC ran on this data set."""
    current = Lock.read(root).outputs if (root / "dvc.lock").exists() else {}
    for path in sorted(root.glob("studies/*/trials.csv")):
        if not path.with_name("dvc.lock").exists():
            continue
        lock = Lock.read(path.parent)
        stage = lock.maker(str(path.relative_to(root)))
        if lock.params(stage).get("params.yaml", {}).get("dataset.name") != params["dataset"]["name"]:
            continue
        other_data = any(current.get(name, digest) != digest for name, digest in lock.inputs(stage).items())
        for model, trial in parse_trials(path):
            stale = other_data or _is_stale(root, lock, stage, params, model)
            yield replace(trial, commit=_last_commit(root, path.with_name("dvc.lock"))) if stale else trial


def parse_trials(path: Path) -> Iterator[tuple[str, Trial]]:
    """Yield the trials of a table that have a test accuracy, each after the name of its model.

    Raises:
        UserError: it is not a table of trials.
    """
    try:
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            if not row["accuracy"]:
                continue
            flops = row.get("inference_flops")
            trial = Trial(
                path.parent.name,
                row["variant"],
                int(row["seed"]),
                float(row["accuracy"]),
                int(row["parameters"]),
                int(flops) if flops else None,
                commit=None,
            )
            if not (0 <= trial.accuracy <= 1 and 0 <= trial.parameters < 2**63 > (trial.inference_flops or 0) >= 0):
                raise ValueError(f"a value out of range: {trial}")
            yield row["model"], trial
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a table of trials: {error!r}") from error


def _is_stale(root: Path, lock: Lock, stage: str, params: Mapping[str, Any], model: str) -> bool:
    """Return whether the code or the params of a study have changed, apart from those of other models."""
    code = {path: digest for path, digest in lock.inputs(stage).items() if path.endswith((".py", ".yaml"))}
    values = lock.params(stage)["params.yaml"]
    for other in params["models"].keys() - {model}:
        code.pop(f"fashion/models/{other}.py", None)
        values.pop(f"models.{other}", None)
    return any(_hash(root / path) != digest for path, digest in code.items()) or any(
        look_up(params, key) != value for key, value in values.items()
    )


def _best_known(result: Result) -> float:
    if result.accuracy_mean is not None:
        return result.accuracy_mean
    return float(result.last_run["accuracy"]) if result.last_run else 0.0


def _hash(path: Path) -> str | None:
    return md5(path.read_bytes()) if path.exists() else None


def _last_commit(root: Path, path: Path) -> str:
    """Return the last commit that changed a file, "unknown" if Git has no such commit.

    In a shallow clone, Git attributes older changes to the oldest commit that it has.
    """
    try:
        commit, *parents = git(root, "log", "-1", "--format=%h %p", "--", str(path.relative_to(root))).split() or [""]
        shallow = not parents and git(root, "rev-parse", "--is-shallow-repository") == "true"
    except UserError:
        return "unknown"
    return "unknown" if shallow or not commit else commit


def _rows(results: list[Result]) -> list[tuple[str, ...]]:
    """Return the header and a row of text per model."""
    runs = [result.last_run for result in results if result.last_run]
    precisions = sorted({precision for result in results for precision in result.train_time_ratios})
    time = "Training time, x T_ref" + (f" ({' / '.join(precisions)})" if len(precisions) > 1 else "")
    # With equal classes, balanced accuracy is accuracy; both are rounded to six decimals.
    unequal = any(abs(run["balanced_accuracy"] - run["accuracy"]) > 2e-6 for run in runs)
    rows = [
        (
            result.name.upper(),
            f"{result.parameters:,}",
            f"{result.inference_flops / 1e6:,.1f}" if result.inference_flops else NONE,
            _accuracy(result),
            str(len(result.accuracies) or NONE),
            " / ".join(_train_time(result, one) for one in precisions) or NONE,
            interval(result.last_run) if result.last_run else NONE,
            *(f"{result.last_run[key]:.2%}" if result.last_run else NONE for key in ("balanced_accuracy", "macro_f1")),
        )
        for result in results
    ]
    header = ("Model", "Parameters", "MFLOP", "Test accuracy", "Seeds", time, "Last run (95% interval)")
    table = [(*header, *MACRO_METRICS), *rows]
    return table if unequal else [row[: len(header)] for row in table]


def _accuracy(result: Result) -> str:
    if result.accuracy_mean is None:
        return NONE
    spread = "" if result.accuracy_std is None else f" ± {result.accuracy_std:.2%}"
    return f"{result.accuracy_mean:.2%}{spread}{_label(result.commit)}"


def _train_time(result: Result, precision: str) -> str:
    if precision not in result.train_time_ratios:
        return NONE
    return f"{result.train_time_ratios[precision]:.2f}{_label(result.train_time_commits.get(precision))}"


def _label(commit: str | None) -> str:
    return f" (commit {commit})" if commit else ""


def interval(metrics: Mapping[str, Any]) -> str:
    """Return an accuracy with its 95% interval."""
    low, high = metrics["accuracy_interval"]["low"], metrics["accuracy_interval"]["high"]
    return f"{metrics['accuracy']:.2%} ({low:.2%} to {high:.2%})"


def as_json(results: list[Result]) -> list[dict[str, Any]]:
    """Return the results as JSON values: accuracies and deviations as fractions, `None` where unknown."""
    return [
        {
            "name": result.name,
            "accuracy_mean": result.accuracy_mean,
            "accuracy_std": result.accuracy_std,
            "seeds": list(result.accuracies),
            "parameters": result.parameters,
            "inference_flops": result.inference_flops,
            "train_time_ratios": result.train_time_ratios,
            "train_time_commits": result.train_time_commits,
            "commit": result.commit,
        }
        for result in results
    ]


def markdown(results: list[Result]) -> str:
    """Return the table as Markdown, aligned for the terminal."""
    table = _rows(results)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
