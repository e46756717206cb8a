"""The table of results that the terminal, the README and the report page share, read from the metrics files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fashion.errors import UserError
from fashion.files import read_json

Metrics = Mapping[str, Any]

HEADER = ("Model", "Parameters", "Test accuracy (95 % interval)", "Test loss")


def read(reports: Path) -> dict[str, Metrics]:
    """Return the metrics of each model under `reports`.

    Raises:
        UserError: there are none.
    """
    found = {path.parent.name: read_json(path) for path in sorted(reports.glob("*/metrics.json"))}
    if not found:
        raise UserError(f"no metrics.json in a folder of {reports}/; run `dvc repro` first")
    return found


def rows(results: Mapping[str, Metrics]) -> list[tuple[str, ...]]:
    """Return a row of text per model, its cells as in `HEADER`, the least accurate first."""
    return [
        (
            name.upper(),
            f"{metrics['parameters']:,}",
            f"{metrics['accuracy']:.2%} ({metrics['accuracy_interval']['low']:.2%} to "
            f"{metrics['accuracy_interval']['high']:.2%})",
            f"{metrics['loss']:.4f}",
        )
        for name, metrics in sorted(results.items(), key=lambda item: (item[1]["accuracy"], item[0]))
    ]


def markdown(results: Mapping[str, Metrics]) -> str:
    """Return the table as Markdown, aligned so that it reads as well on a terminal."""
    table = [HEADER, *rows(results)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
