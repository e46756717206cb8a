"""Run the drill: `make drill`.

Every row is also run once against a planted fault, which it must report. Writes reports/drill.json and the table in
docs/reproducibility.md; exits 1 if an attempt failed or a planted fault went unreported.
"""

import argparse
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fashion.dvc import git
from fashion.errors import UserError, run_command
from fashion.files import read_json, write_json, write_text
from fashion.validation import raise_problems
from tests.drill import cluster, demo, fuzz, pipeline, sources
from tests.drill.row import AttemptError, Result, Row

ROWS: tuple[Row, ...] = (*pipeline.ROWS, *sources.ROWS, *cluster.ROWS, *demo.ROWS, *fuzz.ROWS)
REPORT = Path("reports/drill.json")
PAGE = Path("docs/reproducibility.md")
TABLE = re.compile(r"(?<=<!-- drill -->\n).*?(?=<!-- /drill -->)", re.DOTALL)


def main() -> None:
    """Run the rows and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.run", description=__doc__)
    parser.add_argument("--only", metavar="REGEX", default="", help="run the rows whose names match REGEX")
    parser.add_argument("--share", type=float, default=1, help="fraction of the attempts to make (default: 1)")
    args = parser.parse_args()
    rows = [row for row in ROWS if re.search(args.only, row.name)]
    if not rows:
        raise UserError(f"no row matches {args.only!r}; the rows are:\n" + "\n".join(row.name for row in ROWS))
    report = read_json(REPORT) if REPORT.exists() else {}
    folder = Path(tempfile.mkdtemp(prefix="fashion-drill-"))
    problems = []
    for row in rows:
        if row.skip:
            print(f"skipped: {row.name} ({row.skip})", flush=True)
            continue
        result = run(row, max(1, round(row.tries * args.share)), folder)
        print(f"{result['passed']} of {result['tried']}: {row.name} ({result['minutes']} min)", flush=True)
        problems += faults(row, result)
        report[row.name] = result
        write_json(REPORT, report := {row.name: report[row.name] for row in ROWS if row.name in report})
        write_text(PAGE, TABLE.sub(lambda _: markdown(report), PAGE.read_text(encoding="utf-8")))
    if problems:
        print(f"the files of the attempts are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    raise_problems(problems)


def run(row: Row, tries: int, folder: Path) -> dict[str, Any]:
    """Run the attempts of a row, and one with a planted fault."""
    started = time.monotonic()
    results = {}
    for name, count in (("attempts", tries), ("planted", 1)):
        own = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
        try:
            results[name] = row.run(own, count, name == "planted")
        except AttemptError as error:
            results[name] = Result(count, [str(error)])
        if not results["attempts"].faults:
            shutil.rmtree(own)
    attempts, planted = results["attempts"], results["planted"]
    seconds = attempts.seconds
    return {
        "tried": attempts.tried,
        "passed": attempts.tried - len(attempts.faults),
        "seconds": [round(statistics.median(seconds), 1), round(max(seconds), 1)] if seconds else [],
        "faults": attempts.faults,
        "planted_fault_reported": bool(planted.faults),  # not its message, which has paths of this machine
        "minutes": round((time.monotonic() - started) / 60, 1),
        "commit": git(Path(), "rev-parse", "--short", "HEAD"),
    }


def faults(row: Row, result: Mapping[str, Any]) -> list[str]:
    """Return a line per failed attempt, and one if the planted fault was not reported."""
    missed = [] if result["planted_fault_reported"] else ["the planted fault was not reported"]
    return [f"{row.name}: {fault}" for fault in [*result["faults"], *missed]]


def markdown(report: Mapping[str, Any]) -> str:
    """Return the table."""
    lines = ["| Fault | Tried | Passed | Seconds to recover: median, largest |", "|---|---|---|---|"]
    for name, row in report.items():
        shown = ", ".join(f"{seconds:.1f}" for seconds in row["seconds"])
        lines.append(f"| {name} | {row['tried']:,} | {row['passed']:,} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_command(main)
