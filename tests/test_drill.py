"""A minute of the drill: attempts that take seconds, and their planted faults."""

import sys
from pathlib import Path

import pytest

from fashion.files import read_json
from tests.conftest import ROOT
from tests.drill import pipeline, project, run, sources
from tests.drill.row import Result, Row, repeated

ATTEMPTS = {
    "killed group": pipeline.killed(with_stage=True),
    "killed alone": pipeline.killed(with_stage=False),
    "edited output": pipeline.edited_output,
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipeline that ends with preprocess: without the results that `fashion run` would show."""
    code = "from fashion import errors, pipeline; errors.run_command(lambda: pipeline.run(pipeline.Path()))"
    monkeypatch.setattr(pipeline, "MAKE", [sys.executable, "-c", code])
    template = project.template
    monkeypatch.setattr(project, "template", lambda: template("preprocess"))
    row = Row(name, 1, repeated(ATTEMPTS[name]))
    assert run.faults(row, run.run(row, 1, tmp_path)) == []


@pytest.mark.parametrize("row", [row for row in sources.ROWS if not row.skip], ids=lambda row: row.name)
def test_sources(row: Row, tmp_path: Path) -> None:
    assert run.faults(row, run.run(row, 1, tmp_path)) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({False: ["a"], True: ["b"]}, ["row: a"]),
        ({False: [], True: []}, ["row: the planted fault was not reported"]),
        ({False: [], True: ["b"]}, []),
    ],
)
def test_reported_faults(found: dict[bool, list[str]], expected: list[str], tmp_path: Path) -> None:
    row = Row("row", 3, lambda _folder, tries, planted: Result(tries, found[planted]))
    assert run.faults(row, run.run(row, 3, tmp_path)) == expected


def test_report() -> None:
    """All rows of the committed report passed, and the page shows them."""
    report = read_json(ROOT / run.REPORT)
    assert list(report) == [row.name for row in run.ROWS]
    assert [row.name for row in run.ROWS if report[row.name]["tried"] < row.tries] == []
    assert not [fault for row in run.ROWS for fault in run.faults(row, report[row.name])]
    assert run.markdown(report) in (ROOT / run.PAGE).read_text(encoding="utf-8")
