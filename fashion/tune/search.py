"""The search: Optuna's TPE sampler proposes configurations, ASHA stops trials that lag behind; Ray Tune runs both.

Only `fashion.tune.run` imports this module, when it needs Ray and Optuna.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import ray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from tqdm import tqdm

from fashion.cluster import gpus, use_cores
from fashion.data.dataset import Split
from fashion.params import Range
from fashion.trials import RETRIES, Trial, print_line, reason
from fashion.tune.confirmation import train
from fashion.tune.space import CURRENT, Result, Space, Values

CORES = 1  # per trial
DIGITS = 3  # significant digits of the numbers that are tried
# ASHA stops the worse half of the trials after 30% and after 60% of their epochs. The learning rate of each decays to
# 0 in its own last epoch, so trials of different lengths are comparable only at the same percentage.
FIRST_RUNG = 30
REDUCTION_FACTOR = 2
OBJECTIVE: dict[str, Any] = {"metric": "val_accuracy", "mode": "max"}


def search(
    space: Space,
    splits: Mapping[str, Split],
    known: Sequence[Result],
    count: int,
    hours: float | None,
    save: Callable[[list[Result]], None],
    scratch: Path,
) -> list[Result]:
    """Search on a cluster; resume if there are results.

    Trials that were running when the search was interrupted are not continued; others take their place.

    Args:
        space: what to search.
        splits: "train" and "validation".
        known: earlier results of this search.
        count: number of trials, the known ones included.
        hours: time limit; None for no limit.
        save: stores all results, after each trial.
        scratch: folder for Tune's files.

    Returns:
        All results. Failed trials are reported and have none.
    """
    # Make Tune print nothing, let KeyboardInterrupt through, and write no logs.
    os.environ |= {
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # failures are reported below
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    progress = Progress(space, known, count, save)
    trainable = tune.with_resources(
        tune.with_parameters(_train, space=space, splits=splits), {"cpu": CORES, "gpu": gpus(ray)}
    )
    with tempfile.TemporaryDirectory(dir=scratch.absolute()) as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_sampler(space, known),
                scheduler=_scheduler(known),
                num_samples=count - len(known),
                time_budget_s=hours and 3600 * hours,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[progress],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    return progress.results


def _train(config: dict[str, Any], space: Space, splits: Mapping[str, Split]) -> None:
    """Train in a Ray worker, and report each epoch."""
    import keras

    use_cores(CORES)
    values = _decode(space, config)
    settings = space.settings(values)
    started = time.process_time()
    epochs = 0

    def report(epoch: int, logs: dict[str, float]) -> None:
        nonlocal epochs
        epochs = epoch + 1
        if epochs < settings.epochs:  # the last report follows the evaluation
            tune.report(
                {
                    "outcome": "stopped early",  # the outcome if ASHA stops it here
                    "progress": 100 * epochs / settings.epochs,
                    "epochs": epochs,
                    "val_accuracy": round(logs["val_accuracy"], 6),
                    "seconds": time.process_time() - started,
                }
            )

    trial = Trial(space.describe(values), space.model, settings.seed, settings, key="")
    result = train(trial, splits, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)])
    tune.report({"progress": 100, "epochs": epochs, **result})


class Progress(tune.Callback):
    """Collects the results, prints a line for each trial that ends, and shows a bar with the time left."""

    def __init__(self, space: Space, known: Sequence[Result], count: int, save: Callable[[list[Result]], None]) -> None:
        self.space, self.results, self.count, self.save = space, list(known), count, save
        self.progress: dict[str, dict[float, float]] = {}

    def setup(self, *_args: Any, **_info: Any) -> None:
        self.bar = tqdm(total=self.count, initial=len(self.results), unit=" trials", dynamic_ncols=True, disable=None)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_info: Any
    ) -> None:
        if result["progress"] < 100:
            self.progress.setdefault(trial.trial_id, {})[result["progress"]] = result["val_accuracy"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        values, last = _decode(self.space, trial.config), trial.last_result
        result = Result(
            CURRENT if values == self.space.current else 1 + max((one.number for one in self.results), default=0),
            values,
            self.space.settings(values).seed,
            last["outcome"],
            last["val_accuracy"],
            last["epochs"],
            round(last["seconds"], 1),
            [list(item) for item in self.progress.get(trial.trial_id, {}).items()],
        )
        self.results.append(result)
        self.save(self.results)
        ended = "" if result.outcome == "finished" else f", {result.outcome} after {result.epochs} epochs"
        accuracy, description = f"validation accuracy {result.val_accuracy:.2%}", self.space.describe(values)
        self._ended(f"trial {result.number}: {accuracy}{ended}: {description}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        error, description = trial.get_error(), self.space.describe(_decode(self.space, trial.config))
        self._ended(f"failed: {reason(getattr(error, 'cause', error))}: {description}")

    def _ended(self, line: str) -> None:
        print_line(line)
        self.bar.update()

    def on_experiment_end(self, trials: list[Any], **_info: Any) -> None:
        self.bar.close()


def _sampler(space: Space, known: Sequence[Result]) -> OptunaSearch:
    """Return the TPE sampler, which has seen the known results; it proposes the current params first."""
    tried = any(result.number == CURRENT for result in known)
    sampler = OptunaSearch(
        {key: _distribution(space, key) for key in space.domains},
        points_to_evaluate=None if tried else [_encode(space, space.current)],
        seed=space.settings(space.current).seed + len(known),  # the same seed would repeat the first configurations
        **OBJECTIVE,
    )
    for result in known:
        sampler.add_evaluated_point(_encode(space, result.values), result.val_accuracy)
    return sampler


def _scheduler(known: Sequence[Result]) -> Any:
    """Return the ASHA scheduler, which has seen the known results."""
    scheduler: Any = ASHAScheduler(
        "progress", max_t=100, grace_period=FIRST_RUNG, reduction_factor=REDUCTION_FACTOR, **OBJECTIVE
    )
    for result in known:
        trial = SimpleNamespace(trial_id=f"known-{result.number}")
        scheduler.on_trial_add(None, trial)
        for progress, val_accuracy in result.progress:
            scheduler.on_trial_result(None, trial, {"progress": progress, "val_accuracy": val_accuracy})
    return scheduler


def _distribution(space: Space, key: str) -> BaseDistribution:
    domain = space.domains[key]
    if not isinstance(domain, Range):
        return CategoricalDistribution([json.dumps(choice) for choice in domain])
    if isinstance(space.current[key], int):
        return IntDistribution(int(domain.min), int(domain.max), log=domain.log)
    return FloatDistribution(domain.min, domain.max, log=domain.log)


def _encode(space: Space, values: Values) -> dict[str, Any]:
    """Return a configuration encoded for Optuna: choices as JSON strings."""
    return {
        key: value if isinstance(domain, Range) else json.dumps(domain[domain.index(value)])
        for key, domain in space.domains.items()
        for value in [values[key]]
    }


def _decode(space: Space, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that Optuna proposes, rounded unless it is that of params.yaml."""
    if config == _encode(space, space.current):
        return dict(space.current)
    values = {}
    for key, domain in space.domains.items():
        if not isinstance(domain, Range):
            values[key] = json.loads(config[key])
        elif isinstance(config[key], int):
            values[key] = config[key]
        else:
            values[key] = min(max(float(f"{config[key]:.{DIGITS}g}"), domain.min), domain.max)
    return values
