"""Train all steps with all seeds, side by side on all cores or, with RAY_ADDRESS, on a cluster."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, Strict

from fashion.errors import UserError, run_command
from fashion.params import ModelName, Seed
from fashion.validation import Name, StrictModel, merged, read_yaml, validated

if TYPE_CHECKING:
    from fashion.data.dataset import Split
    from fashion.stores import Store
    from fashion.trials import Trial


class Study(StrictModel):
    """The whole of params.yaml.

    Attributes:
        seeds: each step is trained with each of them.
        start: training params of the first step.
        steps: by model and name, the params that the step changes; it keeps the others of the step before.
    """

    seeds: Annotated[tuple[Seed, ...], Strict(False), Field(min_length=2)]
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

    splits = {"train": args.train, "validation": args.validation}
    results = trials.run(declare(study, splits), lambda: trials.load(splits), train)
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
    from fashion.files import list_folder
    from fashion.models import networks
    from fashion.models.training import fix_precision
    from fashion.trials import Trial

    data = {name: list_folder(folder) for name, folder in splits.items()}
    trials = []
    for model, step, values in settings(study):
        name, module = values["network"], network(values["network"])
        own = {key: value for key, value in values.items() if key != "network"}
        code = Path(str(module.__file__)).read_text(encoding="utf-8")
        for seed in study.seeds:
            params = fix_precision(validated(module.Params, {**own, "seed": seed}, f"{model}: {step}", separator="."))
            key = networks.training_key(name, params, data, code)
            trials.append(Trial(f"{model}: {step}", name, seed, params, key))
    return trials


def network(name: str) -> ModuleType:
    """Return the module of a network of this study or of the project.

    Raises:
        UserError: there is no such network.
    """
    from fashion.models import cnn, dnn
    from studies.ladder import plain_cnn, plain_dnn

    modules = {"plain_dnn": plain_dnn, "plain_cnn": plain_cnn, "dnn": dnn, "cnn": cnn}
    if name not in modules:
        raise UserError(f"network: found {name!r}, expected one of {', '.join(modules)}")
    return modules[name]


def train(trial: "Trial", splits: "Mapping[str, Split]", store: "Store") -> dict[str, Any]:
    """Train a step and evaluate it, as `fashion.trials.train` does."""
    from fashion import trials

    return trials.train(trial, splits, store, network=network(trial.model))


if __name__ == "__main__":
    run_command(main)
