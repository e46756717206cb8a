"""Run a search: `fashion tune`."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fashion import cluster, trials
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.evaluation.figures import png
from fashion.files import list_folder, read_json, write_bytes, write_json, write_text
from fashion.locks import locked
from fashion.models import networks
from fashion.params import load_params
from fashion.tune import confirmation, report, space
from fashion.tune.space import Result, Space
from fashion.validation import edited

FOLDER = Path(".dvc", "tmp", "tune")
REPORTS = Path("reports", "tune")
PARAMS = Path("params.yaml")
SPLITS = {"train": Path("data", "train"), "validation": Path("data", "validation")}  # never the test set


def run(model: str, count: int, hours: float | None, fresh: bool, apply: bool) -> None:
    """Search for better params of a model, confirm the best, and print and write the results.

    Run it again to resume an interrupted search; after a finished one, it trains nothing.

    Args:
        model: its name.
        count: number of trials of the search.
        hours: time limit of this run of the search; None for no limit.
        fresh: start over, even if this search already has results.
        apply: write the recommended params to params.yaml.

    Raises:
        UserError: as for `fashion.tune.space.load`, `search` or `fashion.tune.confirmation.confirm`.
    """
    if count < 2 or (hours is not None and not 0 < hours < math.inf):
        raise UserError(f"found --trials {count}, --hours {hours}; expected at least 2 trials, and more than 0 hours")
    splits = trials.load(SPLITS)
    search_space = space.load(model, load_params(PARAMS), splits["train"].image_shape)
    data = {name: list_folder(folder) for name, folder in SPLITS.items()}
    print(f"Searching {', '.join(search_space.domains)} for {model}", flush=True)
    results = _search(search_space, splits, data, count, hours, fresh)
    print("Training the best configurations with other seeds", flush=True)
    confirmed = confirmation.confirm(search_space, results, SPLITS, data, fresh)
    summaries = confirmation.summarize(confirmed)
    best = confirmation.recommended(summaries).number
    written = [table, figure] = [REPORTS / f"{model}.csv", REPORTS / f"{model}.png"]
    write_text(table, report.table([*results, *confirmed]).to_csv(index=False))
    write_bytes(figure, png(report.draw(model, results, best)))
    print(f"\n{report.markdown(search_space, results, summaries)}\n")
    values = next(result.values for result in confirmed if result.number == best)
    if changes := search_space.changes(values):
        before = PARAMS.read_text(encoding="utf-8")
        after = edited(before, {f"models.{model}.{key}": value for key, value in changes.items()})
        print(report.diff(before, after))
        if apply:
            write_text(PARAMS, after)
            written.append(PARAMS)
    print(f"Written: {', '.join(map(str, written))}")


def _search(
    search_space: Space,
    splits: Mapping[str, Split],
    data: Mapping[str, Mapping[str, str]],
    count: int,
    hours: float | None,
    fresh: bool,
) -> list[Result]:
    """Run the trials that have no results yet."""
    key = networks.training_key(search_space.model, search_space.settings(search_space.current), data)
    content = json.dumps([key, {name: str(search) for name, search in search_space.domains.items()}])
    file = FOLDER / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"
    limits = [count, hours]
    with locked(FOLDER / "lock", "another search is running in this folder; wait for it to end"):
        if fresh:
            file.unlink(missing_ok=True)
        # The limits are those of the finished search; None before its end.
        state = read_json(file) if file.exists() else {"limits": None, "results": []}
        known = [Result(**result) for result in state["results"]]
        if known:
            print(f"{len(known)} trials already have results", flush=True)
        if len(known) >= count or state["limits"] == limits:
            if len(known) < count:
                print("This search has ended; to extend it, raise --trials or set another --hours", flush=True)
            return known
        with cluster.connect(()):
            from fashion.tune.search import search

            results = search(
                search_space, splits, known, count, hours, save=lambda results: _save(file, results), scratch=FOLDER
            )
        _save(file, results, limits)
        return results


def _save(file: Path, results: Sequence[Result], limits: Sequence[float | None] | None = None) -> None:
    write_json(file, {"limits": limits, "results": [asdict(result) for result in results]})
