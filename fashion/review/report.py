"""A review as Markdown, which GitHub and GitLab render, and as an HTML page."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt

from fashion.evaluation.markdown import code, escape
from fashion.evaluation.predictions import Predictions
from fashion.evaluation.recipes import MAX_SEEDS, CorrectBySeed
from fashion.review.compare import Comparison, PairedResult, ReviewResult
from fashion.review.data_changes import DataChanges
from fashion.review.lock_diff import ABSENT

DIGITS = {  # in the order of the rows
    "accuracy": "{:.2%}",
    "balanced_accuracy": "{:.2%}",
    "macro_f1": "{:.2%}",
    "loss": "{:.4f}",
    "calibration_error": "{:.2%}",
}
# Most severe first
VERDICTS = ("worse", "removed", "not comparable", "not measured", "better", "within noise", "unchanged", "new")
LISTED = 12  # items in a line; the others are counted
NAMED = 3  # files per folder


def markdown(result: ReviewResult, failures: Sequence[str], figures: Mapping[str, str]) -> str:
    """Return the review as Markdown.

    Args:
        result: of the comparison.
        failures: of the gate.
        figures: the address of each figure by name; a figure without one is left out.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - Markdown; text from outside is escaped
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template("report.md").render(
        result=result,
        verdict=_verdict(result),
        failures=[_sentence(line) for line in failures],
        warnings=_warnings(result),
        models=[row for model in result.models for row in _rows(model)],
        pairs=[row for pair in result.pairs for row in _rows(pair)],
        tested=any(model.paired for model in (*result.models, *result.pairs)),
        recipes=any(map(_recipe, result.models)),
        significance=result.head.rules.significance,
        data=list(_data(result.data)),
        changed=_changes(result),
        moved=[model for model in result.models if model.paired and not model.paired.unchanged],
        figures=figures,
        escape=escape,
        points=_points,
        prediction=_prediction,
    )
    return text


def page(text: str) -> str:
    """Return a review in Markdown as an HTML page."""
    body = MarkdownIt("commonmark").enable("table").render(text).replace("<details>", "<details open>")
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    html: str = jinja2.Template(template, autoescape=True, undefined=jinja2.StrictUndefined).render(body=body)
    return html


def _verdict(result: ReviewResult) -> str:
    """Return the line that a reviewer reads first."""
    verdicts: dict[str, str] = {model.name: model.verdict for model in result.models}
    if result.head.rules.judge == "recipe":
        verdicts |= {model.name: model.recipe.verdict for model in result.models if model.recipe and _changed(model)}
    groups = {group: [name for name, verdict in verdicts.items() if verdict == group] for group in VERDICTS}
    parts = [f"{', '.join(names)}: {verdict}" for verdict, names in groups.items() if names]
    stale = "dvc.lock is out of date: the models were trained before the latest changes. " if result.head.stale else ""
    return stale + "; ".join(parts) + "."


def _warnings(result: ReviewResult) -> list[str]:
    lines, snapshots = [], (result.base, result.head)
    if not result.base.own_rules:
        lines.append(
            f"params.yaml of {escape(result.base.name)} has no section `review`, or one written for another version of "
            "this package. Head's rules were used for both revisions; a model whose files are missing from base counts "
            "as new."
        )
    if missing := [escape(f"{path} of {snapshot.name}") for snapshot in snapshots for path in snapshot.missing]:
        lines.append(
            f"Not in the DVC cache: {_few(missing)}. Run `dvc pull` or `dvc repro` for the working tree, "
            "`fashion review --rebuild` for a commit."
        )
    if result.test_set_growth and result.head.test_set.labels is not None:
        count = len(result.head.test_set.labels)
        accuracies = (f"{accuracy:.2%} ({escape(name)})" for name, accuracy in result.accuracies.items())
        lines.append(
            f"The test set has grown from {count:,} to {count + result.test_set_growth:,} examples: metrics and "
            f"indices below refer to the {count:,} examples of base. On all examples, head's accuracy is "
            f"{' and '.join(accuracies) or 'unknown'}."
        )
    unmeasured: dict[str, list[str]] = {}
    for model in result.models:
        if model.recipe and _changed(model) and (result.head.rules.judge == "model" or model.name in result.waivers):
            for problem in model.recipe.problems:
                unmeasured.setdefault(problem, []).append(escape(model.name))
    lines += [f"Recipe of {_few(names)}: {_sentence(problem)}." for problem, names in unmeasured.items()]
    compared = {model.name for model in result.models}
    lines += [
        f"Waiver: a regression of {escape(name)} is accepted: {escape(why)}"
        if name in compared
        else f"The waiver for {escape(name)} has no effect: there is no such model"
        for name, why in result.waivers.items()
    ]
    rebuilt = [escape(snapshot.name) for snapshot in snapshots if snapshot.rebuilt]
    return lines + [f"The pipeline of {name} was run again here: the cache lacked its outputs." for name in rebuilt]


def _rows(model: Comparison) -> list[tuple[str, ...]]:
    """Return a row per metric, and that of the recipe after the accuracy."""
    verdicts: dict[str, str] = {}
    if (pair := model.paired) and not pair.unchanged:
        verdicts = {"accuracy": _accuracy(model, pair), "loss": _loss(pair), "calibration_error": _calibration(pair)}
    rows: list[tuple[str, ...]] = []
    for metric, digits in DIGITS.items():
        before, after = (side.metrics.get(metric) if side else None for side in (model.base, model.head))
        if metric != "accuracy" and before is None and after is None:
            continue
        shown = ("-" if value is None else digits.format(value) for value in (before, after))
        change = "-"
        if before is not None and after is not None:
            change = f"{after - before:+.4f}" if metric == "loss" else _points(after - before)
        name = f"**{escape(model.name)}**" if metric == "accuracy" else ""
        title = metric.replace("_", " ").replace("f1", "F1")
        rows.append((name, title, *shown, change, verdicts.get(metric) or (name and model.verdict)))
    return rows[:1] + _recipe(model) + rows[1:]


def _accuracy(model: Comparison, pair: PairedResult) -> str:
    test = (
        f"**{model.verdict}**: {pair.accuracy.fixed} fixed, {pair.accuracy.broken} broken, p = {model.p_adjusted:.2g}"
    )
    if model.min_significant_change is None:
        return test
    return f"{test}; smallest significant change {100 * model.min_significant_change:.2f} points"


def _recipe(model: Comparison) -> list[tuple[str, ...]]:
    """Return the row of the recipe of a changed model, if it was measured in one of the revisions."""
    recipe = model.recipe
    if recipe is None or not _changed(model) or (recipe.base is None and recipe.head is None):
        return []
    means = [_mean(side) for side in (recipe.base, recipe.head)]
    counts = dict.fromkeys(len(side) for side in (recipe.base, recipe.head) if side is not None)
    title = f"mean accuracy, {' and '.join(map(str, counts))} seeds"
    if recipe.change is None:
        return [("", title, *means, "-", recipe.verdict)]
    change = recipe.change
    low, high = (_points(value) for value in (change.accuracy.low, change.accuracy.high))
    verdict = (
        f"**{recipe.verdict}**: 95% interval {low} to {high}, p = {recipe.p_adjusted:.2g}; head is more accurate in "
        f"{change.wins:g} of {change.pairs} pairs of trials"
    )
    if recipe.verdict == "within noise":
        needed = f"with at least {change.seeds_needed}" if change.seeds_needed else f"even with {MAX_SEEDS:,}"
        verdict += f"; a change of this size would {'' if change.seeds_needed else 'not '}be significant {needed} seeds"
    return [("", title, *means, _points(change.accuracy.change), verdict)]


def _changed(model: Comparison) -> bool:
    return model.paired is None or not model.paired.unchanged


def _mean(correct: CorrectBySeed | None) -> str:
    """Return the mean accuracy of trials and its standard deviation."""
    if correct is None:
        return "-"
    accuracies = correct.mean(axis=1)
    return f"{accuracies.mean():.2%} ± {accuracies.std(ddof=1):.2%}"


def _loss(pair: PairedResult) -> str:
    if pair.loss is None:
        return ""
    verdict = ("better" if pair.loss.change < 0 else "worse") if pair.loss.excludes_zero else "within noise"
    return f"{verdict} (95%: {pair.loss.low:+.4f} to {pair.loss.high:+.4f})"


def _calibration(pair: PairedResult) -> str:
    if pair.calibration is None:
        return ""
    change, p_value = pair.calibration
    return f"{('better' if change < 0 else 'worse') if p_value < 0.05 else 'within noise'} (p = {p_value:.2g})"


def _data(changes: DataChanges) -> Iterator[str]:
    """Yield a line per change of the data."""
    for what, classes in (("added", changes.added), ("removed", changes.removed)):
        if classes:
            yield f"classes {what}: {_few([escape(name) for name in classes])}"
    for split, images in changes.images.items():
        listed = _few([f"{escape(name)} {_from_to(pair)}" for name, pair in images.items()])
        yield f"{escape(split)} images: {_from_to(changes.totals[split])} ({listed})"
    for path, folder in changes.folders.items():
        counts = f"files in {code(path)}: {_from_to(folder.counts)}"
        if folder.files is None:
            yield f"{counts}; run {code(f'dvc fetch --all-commits {path}.dvc')} to list the changes"
            continue
        yield counts
        for kind, paths in folder.files.items():
            groups: dict[str, list[str]] = {}
            for group, _, name in (path.rpartition("/") for path in paths):
                groups.setdefault(group, []).append(name)
            yield f"{len(paths):,} {kind}: {_few([_files(*group) for group in groups.items()])}"
        if folder.moved:
            yield f"{len(folder.moved):,} moved: {_few([f'{code(old)} → {code(new)}' for old, new in folder.moved])}"


def _files(group: str, names: Sequence[str]) -> str:
    more = ", ..." if len(names) > NAMED else ""
    where = f" in {escape(group)}" if group else ""
    return f"{len(names):,}{where} ({', '.join(code(name) for name in names[:NAMED])}{more})"


def _from_to(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} → {pair[1]:,}"


def _changes(result: ReviewResult) -> list[str]:
    diff = result.lock
    lines = {
        "not run yet": [code(change) for change in result.head.stale],
        "params": [_param(*difference) for difference in (*diff.params, *result.rules)],
        "code": [code(path) for path in diff.code if path not in result.data.folders],
        "commands": [escape(stage) for stage in diff.commands],
        "data, models and results": [code(path) for path in diff.outputs],
        "stages run again": [escape(stage) for stage in diff.rerun],
        "unchanged stages": [] if result.head.stale else [escape(stage) for stage in diff.unchanged],
        "removed stages": [escape(stage) for stage in diff.removed],
    }
    return [f"{what}: {_few(items)}" for what, items in lines.items() if items or what in ("params", "code")]


def _param(key: str, before: Any, after: Any) -> str:
    values = ("absent" if value is ABSENT else code(str(value)) for value in (before, after))
    return f"{code(key)}: {' → '.join(values)}"


def _sentence(text: str) -> str:
    """Return a sentence escaped, except for the commands in backticks."""
    parts = re.split("`([^`]+)`", text)
    return "".join(code(part) if number % 2 else escape(part) for number, part in enumerate(parts))


def _few(items: Sequence[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more if items else "none"


def _prediction(predictions: Predictions, index: int) -> str:
    confidence = f" ({predictions.confidence[index]:.1%})" if predictions.has_probabilities else ""
    return escape(predictions.classes[predictions.predicted[index]]) + confidence


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f} points"
