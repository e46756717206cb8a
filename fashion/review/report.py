"""A review as Markdown, which GitHub and GitLab render, and as an HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt

from fashion.params import Review
from fashion.review.comparing import METRICS, Comparison, Report

DIGITS = {"accuracy": "{:.2%}", "loss": "{:.4f}", "calibration_error": "{:.2%}"}
VERDICTS = ("worse", "better", "within noise", "unchanged", "new", "gone", "not comparable")  # the gravest first
LISTED = 12  # files or params in a line of what changed; more are counted


def markdown(report: Report, declared: Review, pictures: Mapping[str, str]) -> str:
    """Return the review as Markdown; `pictures` gives the address of each picture by name, those that there are."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - Markdown; `_cell` keeps what others wrote within its cell
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template("report.md").render(
        report=report,
        classes=[_cell(name) for name in declared.classes],
        verdict=_verdict(report.models),
        warnings=_warnings(report),
        models=[row for model in report.models for row in _rows(model)],
        pairs=[row for pair in report.pairs for row in _rows(pair)],
        moved=[model for model in report.models if model.test and not model.test.unchanged],
        changed=_changed(report),
        tested=sum(model.test is not None for model in report.models),
        significance=declared.significance,
        seeds=any(model.seed_deviation for model in report.models),
        pictures=pictures,
        points=_points,
        answer=lambda probabilities: f"{_cell(declared.classes[probabilities.argmax()])} ({probabilities.max():.1%})",
    )
    return text


def page(text: str) -> str:
    """Return a review in Markdown as an HTML page."""
    body = MarkdownIt("commonmark").enable("table").render(text)
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    html: str = jinja2.Template(template, autoescape=True, undefined=jinja2.StrictUndefined).render(body=body)
    return html


def _verdict(models: Sequence[Comparison]) -> str:
    """Return the line that a reviewer reads first."""
    groups = {verdict: [model.name for model in models if model.verdict == verdict] for verdict in VERDICTS}
    words = {"within noise": "different within noise"}
    parts = [f"{', '.join(names)}: {words.get(verdict, verdict)}" for verdict, names in groups.items() if names]
    return "; ".join(parts) + "."


def _warnings(report: Report) -> list[str]:
    lines = []
    if not report.same_truth:
        lines.append("The test cases of the two revisions differ, so their models cannot be compared on the same ones.")
    if report.missing:
        lines.append(
            f"Not in the DVC cache: {_few(report.missing)}. `dvc pull` gets them from the remote, "
            "`fashion review --rebuild` runs the pipeline of the revision again."
        )
    if report.stale:
        lines.append(
            f"dvc.lock of {report.head.name} was not written with what is there now: {_few(report.stale)}. "
            "Run `dvc repro` and commit dvc.lock; until then its results are those of other code or params."
        )
    return lines


def _rows(model: Comparison) -> list[tuple[str, ...]]:
    """Return a row per metric that either side knows."""
    rows: list[tuple[str, ...]] = []
    for metric in METRICS:
        values = [side.metrics.get(metric) if side else None for side in (model.base, model.head)]
        before, after = (DIGITS[metric].format(value) if value is not None else "-" for value in values)
        change, verdict = _accuracy(model, *values) if metric == "accuracy" else _interval(model, metric)
        name = f"**{_cell(model.name)}**" if metric == "accuracy" else ""
        rows.append((name, metric.replace("_", " "), before, after, change, verdict))
    return rows


def _accuracy(model: Comparison, before: float | None, after: float | None) -> tuple[str, str]:
    change = "-" if before is None or after is None else _points(after - before)
    if model.test is None or model.test.unchanged:
        return change, model.verdict
    found = model.test.accuracy
    verdict = f"**{model.verdict}**: {found.fixed} fixed, {found.broken} broken, p = {model.p_adjusted:.2g}"
    if model.test.smallest is not None:
        verdict += f"; significant from {100 * model.test.smallest:.2f} points on"
    if model.seed_deviation is not None:
        verdict += f"; seeds ± {100 * model.seed_deviation:.2f} points"
    return change, verdict


def _interval(model: Comparison, metric: str) -> tuple[str, str]:
    if model.test is None or model.test.unchanged:
        return "-", ""
    interval = model.test.changes[metric]
    change, low, high = (
        f"{value:+.4f}" if metric == "loss" else _points(value)
        for value in (interval.change, interval.low, interval.high)
    )
    verdict = ("better" if interval.change < 0 else "worse") if interval.excludes_zero else "within noise"
    return change, f"{verdict} (95 %: {low} to {high})"


def _changed(report: Report) -> list[str]:
    found = report.changes
    params = [f"`{key}`: {_value(before)} → {_value(after)}" for key, before, after in found.params]
    return [
        f"params: {_few(params)}",
        f"code: {_few([f'`{path}`' for path in found.code])}",
        f"data and results: {_few([f'`{path}`' for path in found.data])}",
        f"stages that ran again: {_few(found.rerun)}",
        f"stages that did not, as nothing they need differs: {_few(found.kept)}",
    ]


def _value(value: Any) -> str:
    return "not there" if value is None else f"`{value}`"


def _few(items: Sequence[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(map(_cell, items[:LISTED])) + more if items else "none"


def _cell(text: str) -> str:
    """Return text that stays within its cell or line, and is no HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _points(share: float) -> str:
    return f"{100 * share:+.2f} points"
