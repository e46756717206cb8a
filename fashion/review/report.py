"""A review as Markdown, which GitHub and GitLab render, and as an HTML page."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt

from fashion.evaluation.markdown import code, escape
from fashion.review.lock_diff import NOT_THERE
from fashion.review.compare import Comparison, Paired, Report

DIGITS = {"accuracy": "{:.2%}", "loss": "{:.4f}", "calibration_error": "{:.2%}"}
VERDICTS = ("worse", "gone", "not comparable", "better", "within noise", "unchanged", "new")  # the gravest first
ENOUGH_SEEDS = 3  # to speak of their spread
LISTED = 12  # items in a line of what changed; more are counted


def markdown(report: Report, pictures: Mapping[str, str]) -> str:
    """Return the review as Markdown; `pictures` gives the address of each picture by name, those that there are."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - Markdown; text from outside is escaped
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template("report.md").render(
        report=report,
        verdict=_verdict(report),
        warnings=_warnings(report),
        models=[row for model in report.models for row in _rows(model)],
        pairs=[row for pair in report.pairs for row in _rows(pair)],
        tested=any(model.paired for model in (*report.models, *report.pairs)),
        seeds=any(len(model.seeds) >= ENOUGH_SEEDS for model in report.models),
        significance=report.significance,
        changed=_changed(report),
        moved=[model for model in report.models if model.paired and not model.paired.unchanged],
        pictures=pictures,
        escape=escape,
        points=_points,
        answer=lambda probabilities: f"{escape(report.classes[probabilities.argmax()])} ({probabilities.max():.1%})",
    )
    return text


def page(text: str) -> str:
    """Return a review in Markdown as an HTML page."""
    body = MarkdownIt("commonmark").enable("table").render(text)
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    html: str = jinja2.Template(template, autoescape=True, undefined=jinja2.StrictUndefined).render(body=body)
    return html


def _verdict(report: Report) -> str:
    """Return the line that a reviewer reads first."""
    groups = {verdict: [model.name for model in report.models if model.verdict == verdict] for verdict in VERDICTS}
    words = {"within noise": "different within noise"}
    parts = [f"{', '.join(names)}: {words.get(verdict, verdict)}" for verdict, names in groups.items() if names]
    behind = "Not of the code and params that are there. " if report.stale else ""
    return behind + "; ".join(parts) + "."


def _warnings(report: Report) -> list[str]:
    lines = [f"The gate fails: {line.replace('<', '&lt;')}." for line in report.failures]
    if not report.same_test_set:
        lines.append(
            "The test cases of the two revisions differ, or those of one are not at hand, so their models cannot be "
            "compared on the same ones."
        )
    if report.missing:
        missing = _few([escape(artifact) for artifact in report.missing])
        lines.append(
            f"Not in the DVC cache: {missing}. For the working tree, `dvc pull` gets it from the remote or `dvc repro` "
            "makes it; for a commit, `fashion review --rebuild` does both."
        )
    again = [escape(revision.name) for revision in (report.base, report.head) if snapshot.rebuilt]
    return lines + [f"The pipeline of {name} was run again here, as the cache lacked its artifacts." for name in again]


def _rows(model: Comparison) -> list[tuple[str, ...]]:
    """Return a row per metric."""
    rows: list[tuple[str, ...]] = []
    for metric, verdict_on in {"accuracy": _accuracy, "loss": _loss, "calibration_error": _calibration}.items():
        before, after = (side.metrics.get(metric) if side else None for side in (model.base, model.head))
        shown = ("-" if value is None else DIGITS[metric].format(value) for value in (before, after))
        change = "-"
        if before is not None and after is not None:
            change = f"{after - before:+.4f}" if metric == "loss" else _points(after - before)
        name = f"**{escape(model.name)}**" if metric == "accuracy" else ""
        verdict = verdict_on(model, model.paired) if model.paired and not model.paired.unchanged else ""
        rows.append((name, metric.replace("_", " "), *shown, change, verdict or (name and model.verdict)))
    return rows


def _accuracy(model: Comparison, pair: Paired) -> str:
    parts = [
        f"**{model.verdict}**: {pair.accuracy.fixed} fixed, {pair.accuracy.broken} broken, p = {model.p_adjusted:.2g}"
    ]
    if model.smallest is not None:
        parts.append(f"significant from {100 * model.smallest:.2f} points on")
    if len(model.seeds) >= ENOUGH_SEEDS:
        parts.append(f"{len(model.seeds)} seeds: ± {100 * statistics.stdev(model.seeds):.2f} points")
    return "; ".join(parts)


def _loss(_model: Comparison, pair: Paired) -> str:
    verdict = ("better" if pair.loss.change < 0 else "worse") if pair.loss.excludes_zero else "within noise"
    return f"{verdict} (95 %: {pair.loss.low:+.4f} to {pair.loss.high:+.4f})"


def _calibration(_model: Comparison, pair: Paired) -> str:
    change, p_value = pair.calibration
    return f"{('better' if change < 0 else 'worse') if p_value < 0.05 else 'within noise'} (p = {p_value:.2g})"


def _changed(report: Report) -> list[str]:
    found = report.changes
    lines = {
        "params": [_param(*difference) for difference in (*found.params, *report.rules)],
        "code": [code(path) for path in found.code],
        "commands": [escape(stage) for stage in found.commands],
        "data, models and results": [code(path) for path in found.outs],
        "stages that had to run again": [escape(stage) for stage in found.rerun],
        "stages that had not, as nothing they need differs": [escape(stage) for stage in found.kept],
        "stages that are gone": [escape(stage) for stage in found.gone],
    }
    return [f"{what}: {_few(items)}" for what, items in lines.items() if items or what in ("params", "code")]


def _param(key: str, before: Any, after: Any) -> str:
    values = ("not there" if value is NOT_THERE else code(str(value)) for value in (before, after))
    return f"{code(key)}: {' → '.join(values)}"


def _few(items: Sequence[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more if items else "none"


def _points(share: float) -> str:
    return f"{100 * share:+.2f} points"
