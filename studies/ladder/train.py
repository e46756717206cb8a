"""Train all steps with all seeds, side by side on all cores or, with RAY_ADDRESS, on a cluster."""

import argparse
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from fashion.errors import run_command
from fashion.params import ModelName
from fashion.study import Seeds
from fashion.validation import Name, StrictModel, merged, read_yaml, validated

if TYPE_CHECKING:
    from fashion.trials import Trial


class Study(StrictModel):
    """The whole of params.yaml.

    Attributes:
        seeds: each step is trained with each of them.
        start: training params of the first step.
        steps: by model and name, the params that the step changes; it keeps the others of the step before.
    """

    seeds: Annotated[Seeds, Field(min_length=2)]
    start: dict[str, Any]
    steps: dict[ModelName, dict[Name, dict[str, Any]]]


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.ladder.train", description=__doc__)
    parser.add_argument("study", type=Path, help="params.yaml of the study")
    parser.add_argument("train", type=Path, help="training split (folder)")
    parser.add_argument("validation", type=Path, help="validation split (folder)")
    parser.add_argument("trials", type=Path, help="results to write, a row per trial (.csv)")
    args = parser.parse_args()
    study = validated(Study, read_yaml(args.study), str(args.study))

    import pandas as pd

    from fashion import trials
    from fashion.files import write_text
    from studies.ladder import networks

    splits = {"train": args.train, "validation": args.validation}
    results = trials.run(declare(study, splits), lambda: trials.load(splits), networks.train)
    write_text(args.trials, pd.DataFrame(results).to_csv(index=False))


def settings(study: Study) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the model, the name and the params of each step, with the name of its network as `network`."""
    for model, steps in study.steps.items():
        values = study.start
        for step, changes in steps.items():
            values = merged(values, changes)
            yield model, step, values


def declare(study: Study, splits: Mapping[str, Path]) -> "list[Trial]":
    """Return the trials, step by step and seed by seed.

    Raises:
        UserError: a param is unknown, missing, of the wrong type or out of bounds (one line each).
    """
    from fashion import trials
    from fashion.files import list_folder
    from fashion.models.networks import training_key
    from fashion.models.training import fix_precision
    from studies.ladder import networks

    data = {name: list_folder(folder) for name, folder in splits.items()}
    declared = []
    for model, step, values in settings(study):
        own = dict(values)
        name = own.pop("network", "")
        network = networks.load(name)
        code = Path(str(network.__file__)).read_text(encoding="utf-8"), inspect.getsource(trials.train)
        for seed in study.seeds:
            params = fix_precision(validated(network.Params, {**own, "seed": seed}, f"{model}: {step}", separator="."))
            key = training_key(name, params, data, *code)
            declared.append(trials.Trial(f"{model}: {step}", name, seed, params, key))
    return declared


if __name__ == "__main__":
    run_command(main)
