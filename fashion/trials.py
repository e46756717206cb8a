"""Many training runs, side by side on the cores of this machine or, with RAY_ADDRESS, on a Ray cluster.

The result of each is written to .dvc/tmp/trials as soon as it finishes, so an interrupted or changed study trains only
what is missing.
"""

import inspect
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from fashion import cluster, parent
from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import UserError, one_line
from fashion.files import list_folder, read_json, write_json
from fashion.locks import locked
from fashion.params import Params
from fashion.stores import FileStore, Store
from fashion.study import Study
from fashion.validation import raise_problems

if TYPE_CHECKING:
    import keras

FOLDER = Path(".dvc", "tmp", "trials")
RETRIES = 3  # of a trial whose worker or node is lost
POLL = 5  # seconds between checks that DVC is still running


@dataclass(frozen=True)
class Trial:
    """A training run and its evaluation.

    Attributes:
        variant: name of its settings, shared by the trials that differ only in the seed.
        model: name of the network.
        seed: seed of the training run.
        settings: everything else that it is trained with, such as `TrainingParams`.
        key: hash of what the result depends on: settings, code, data, number of cores, TensorFlow and Keras.
    """

    variant: str
    model: str
    seed: int
    settings: Any
    key: str

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    @property
    def result(self) -> Path:
        """The file of its result."""
        return FOLDER / f"{self.key}.json"

    @property
    def checkpoint(self) -> FileStore:
        """The store of its checkpoint."""
        return FileStore(FOLDER / f"{self.key}.npz")


Train = Callable[[Trial, Any, Store], dict[str, Any]]
"""Trains on data, such as splits by name; returns JSON-serialisable results, including val_accuracy."""


def of_study(study: Study, params: Params, splits: Mapping[str, Path], cores: int = 1) -> list[Trial]:
    """Return the trials of a study, variant by variant and seed by seed.

    Args:
        study: what to train.
        params: the whole of params.yaml.
        splits: folders of the splits, by name.
        cores: cores per trial; part of the key, because it may change rounding.

    Raises:
        UserError: a key is unknown, missing, of the wrong type or out of bounds (one line each).
    """
    from fashion.models import networks, training

    data = {name: list_folder(folder) for name, folder in splits.items()}
    code = inspect.getsource(train)
    trials, problems = [], []
    for variant, changes in study.variants.items():
        model, own = changes["model"], {key: value for key, value in changes.items() if key != "model"}
        try:
            settings = [
                training.fix_precision(networks.params_of(model, params, {**own, "seed": seed})) for seed in study.seeds
            ]
        except UserError as error:
            place = f"models.{model}."
            problems += [f"{variant}: {line.removeprefix(place)}" for line in str(error).splitlines()]
        else:
            trials += [
                Trial(variant, model, one.seed, one, networks.training_key(model, one, data, cores, code))
                for one in settings
            ]
    raise_problems(problems)
    return trials


def train(
    trial: Trial,
    splits: Mapping[str, Split],
    store: Store | None = None,
    callbacks: "Sequence[keras.callbacks.Callback]" = (),
    network: ModuleType | None = None,
) -> dict[str, Any]:
    """Train one of the project's networks and evaluate it.

    Args:
        trial: its settings are the network's `Params`.
        splits: "train", "validation" and, to evaluate on the test set, "test".
        store: where checkpoints are kept.
        callbacks: further Keras callbacks.
        network: a module such as `fashion.models.cnn`; by default that of the trial's model.

    Returns:
        parameters (count), inference_flops (per prediction), val_accuracy, accuracy (on the test set; None without
        one), seconds (processor time of the training, summed over threads) and errors (indices of the misclassified
        test images, separated by spaces; None without a test set).
    """
    from fashion.models import checkpoints, networks, training
    from fashion.models.flops import inference_flops
    from fashion.models.input_pipeline import batches

    started = time.process_time() - checkpoints.seconds(store)
    network = network or networks.load(trial.model)
    model, _ = training.train(network, trial.settings, splits["train"], splits["validation"], store, callbacks)
    seconds = time.process_time() - started
    correct = {
        name: model.predict(batches(split), verbose=0).argmax(axis=1) == split.labels
        for name, split in splits.items()
        if name != "train"
    }
    accuracy = {name: round(float(values.mean()), 6) for name, values in correct.items()}
    return {
        "parameters": model.count_params(),
        "inference_flops": inference_flops(model),
        "val_accuracy": accuracy["validation"],
        "accuracy": accuracy.get("test"),
        "seconds": round(seconds, 1),
        "errors": " ".join(map(str, np.flatnonzero(~correct["test"]))) if "test" in correct else None,
    }


def load(splits: Mapping[str, Path]) -> dict[str, Split]:
    """Return the splits that `train` needs."""
    return {name: dataset.load(folder) for name, folder in splits.items()}


def run(
    trials: Sequence[Trial],
    data: Callable[[], Any],
    function: Train = train,
    *,
    cores: int = 1,
    fresh: bool = False,
) -> list[dict[str, Any]]:
    """Run the trials that have no results yet.

    Args:
        trials: what to run.
        data: loads what the trials train on; called only if a trial has to run.
        function: runs a trial.
        cores: cores per trial. If any node has a GPU, every trial gets one, too.
        fresh: run all, even those that already have results.

    Returns:
        variant, model, seed and the results of each trial, in the order of `trials`.

    Raises:
        UserError: a line per trial that failed, after the others have finished; `cores` is not positive, or more than
            any node has; other trials are running in this folder; DVC was killed; the head of the cluster is lost; or
            as for `fashion.cluster.connect`.
    """
    if cores < 1:
        raise UserError(f"expected at least 1 core per trial, found --cores {cores}")
    missing = [trial for trial in trials if fresh or not trial.result.exists()]
    if known := len(trials) - len(missing):
        print_line(f"{known} of {len(trials)} trials already have results")
    if missing:
        with locked(FOLDER / "lock", "other trials are running in this folder; wait for them to end"):
            try:
                _run(list({trial.key: trial for trial in missing}.values()), data(), function, cores, fresh)
            finally:
                for trial in trials:
                    if trial.result.exists():
                        trial.checkpoint.path.unlink(missing_ok=True)
    return [
        {"variant": trial.variant, "model": trial.model, "seed": trial.seed, **read_json(trial.result)}
        for trial in trials
    ]


def _run(trials: Sequence[Trial], data: Any, function: Train, cores: int, fresh: bool) -> None:
    """Run trials as Ray tasks; write the result of each as soon as it finishes.

    With `fresh`, their old results and checkpoints are deleted first, once it is certain that trials can run.
    """
    failures, lost = [], Counter[str]()
    with cluster.connect({function.__module__.partition(".")[0]}) as ray:
        largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
        if cores > largest:
            raise UserError(f"a trial needs {cores} cores (--cores), but no node has more than {largest}")
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        on_driver = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1}
        writer = ray.remote(CheckpointWriter).options(**on_driver).remote(FOLDER.absolute())
        task = ray.remote(_task).options(num_cpus=cores, num_gpus=cluster.gpus(ray), max_retries=0)
        stored = ray.put(data)

        def start(trial: Trial) -> Any:
            store = RemoteStore(trial.checkpoint.read(), writer, trial.key)
            return task.remote(function, trial, stored, store, cores)

        for trial in trials if fresh else ():
            trial.result.unlink(missing_ok=True)
            trial.checkpoint.path.unlink(missing_ok=True)
        running = {start(trial): trial for trial in trials}
        head = cluster.Head(ray.get_runtime_context().gcs_address)
        with tqdm(total=len(trials), unit=" trials", dynamic_ncols=True, disable=None) as bar:
            while running:
                done, _ = ray.wait(list(running), num_returns=1, timeout=POLL)
                for reference in done:
                    trial = running.pop(reference)
                    try:
                        result = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        failures.append(_failure(trial, error.cause))
                        traceback = "" if isinstance(error.cause, UserError) else f"\n{error}"
                        print_line(f"{trial}: failed{traceback}")
                    except ray.exceptions.RayError as error:  # its worker or node
                        lost[trial.key] += 1
                        if lost[trial.key] <= RETRIES:
                            print_line(f"{trial}: its worker was lost ({type(error).__name__}); starting it again")
                            running[start(trial)] = trial
                            continue
                        failures.append(_failure(trial, error))
                    else:
                        write_json(trial.result, result)
                        print_line(f"{trial}: validation accuracy {result['val_accuracy']:.2%}")
                    bar.update()
                parent.check()
                head.check()
    raise_problems(failures)


def print_line(line: str) -> None:
    """Print a line above the progress bar; flush, so that a log stays current."""
    tqdm.write(line)
    sys.stdout.flush()


class CheckpointWriter:
    """A Ray actor on the driver's node that writes the checkpoints of all trials, so that nodes need no shared disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, key: str, content: bytes) -> None:
        """Replace the checkpoint of a trial."""
        FileStore(self.folder / f"{key}.npz").write(content)


@dataclass(frozen=True)
class RemoteStore:
    """The checkpoint with which a trial starts, and the actor that writes later ones."""

    checkpoint: bytes | None
    writer: Any
    key: str

    def read(self) -> bytes | None:
        """Return the checkpoint, None if there is none."""
        return self.checkpoint

    def write(self, content: bytes) -> None:
        """Replace the checkpoint."""
        # Not awaited: while a task waits, Ray gives its core to another. So a failed write goes unreported.
        self.writer.write.remote(self.key, content)


def _task(function: Train, trial: Trial, data: Any, store: RemoteStore, cores: int) -> dict[str, Any]:
    """Run a trial in a Ray worker."""
    cluster.use_cores(cores)
    return function(trial, data, store)


def _failure(trial: Trial, error: Exception) -> str:
    """Return the line that reports a failed trial."""
    return f"{trial}: {reason(error)}; its params: {trial.settings}"


def reason(error: BaseException) -> str:
    """Return what went wrong, on one line."""
    message = one_line(error)
    return message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"
