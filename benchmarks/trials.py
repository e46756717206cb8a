"""Measure what side-by-side trainings and a cluster gain and cost, and print the results as JSON.

    python -m benchmarks.trials

The clusters are on this machine: a node is one core, so two nodes share the memory and the caches, and their network is
the loopback device.
"""

import argparse
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks import timed
from benchmarks.cluster import cluster
from fashion import trials
from fashion.cluster import connect
from fashion.errors import UserError, run_command
from fashion.models import networks
from fashion.params import TrainingParams, load_params

ROUNDS = 3
EPOCHS = 3  # of a timed training
WAYS = {"side by side": 1, "one after the other": 2}  # and the threads of each training
COUNTS = (2, 4, 8)
EMPTY_TRIALS = 400


def main() -> None:
    """Run the measurements."""
    argparse.ArgumentParser(prog="python -m benchmarks.trials", description=__doc__).parse_args()
    if not hasattr(os, "sched_getaffinity"):
        raise UserError("this benchmark needs Linux, where processes can be bound to a core")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise UserError("this benchmark needs two cores")
    params = load_params()
    small, large = next(iter(params.models)), list(params.models)[-1]
    short = {name: networks.params_of(name, params, {"epochs": EPOCHS}) for name in (small, large)}
    data = trials.load({name: Path("data", name) for name in ("train", "validation")})
    results = {
        "side_by_side": {
            "model": large,
            "epochs": networks.params_of(large, params).epochs,
            "timed_epochs": EPOCHS,
            **side_by_side(large, short[large], data, cores),
        },
        "growth": {"model": small, "timed_epochs": EPOCHS, "runs": growth(small, short[small], data, cores)},
        "costs": costs(small, short[small], data, cores),
    }
    print(json.dumps(results))


def side_by_side(model: str, settings: TrainingParams, data: Any, cores: Sequence[int]) -> dict[str, Any]:
    """Train twice, side by side and one after the other, in turns.

    Returns:
        seconds: of each pair, without the time in which no training runs.
        training_seconds: of a training side by side, the median.
    """
    pairs: dict[str, list[float]] = {way: [] for way in WAYS}
    single = []
    with cluster([cores]):
        for way in [*WAYS] * ROUNDS:
            results = run(timed.train, 2, model, settings, data, cores=WAYS[way])
            pairs[way].append(busy_seconds((result["started"], result["ended"]) for result in results))
            if way == "side by side":
                single += [result["ended"] - result["started"] for result in results]
    return {"seconds": pairs, "training_seconds": statistics.median(single)}


def growth(model: str, settings: TrainingParams, data: Any, cores: Sequence[int]) -> list[dict[str, Any]]:
    """Time several trials on one node and on two, in turns.

    Returns:
        For each number of trials and nodes: seconds of the whole, start_seconds until the first training begins,
        training_seconds of each training, gap_seconds between two trainings of a node.
    """
    runs = []
    for count, nodes in itertools.product(COUNTS, (1, 2)):
        with cluster([[core] for core in cores[:nodes]]):
            started = time.time()
            results = run(timed.train, count, model, settings, data)
            seconds = time.time() - started
        runs.append(
            {
                "nodes": nodes,
                "trials": count,
                "seconds": seconds,
                "start_seconds": min(result["started"] for result in results) - started,
                "training_seconds": [result["ended"] - result["started"] for result in results],
                "gap_seconds": gaps(results),
            }
        )
    return runs


def costs(model: str, settings: TrainingParams, data: Any, cores: Sequence[int]) -> dict[str, Any]:
    """Measure on two nodes what trials cost apart from the training.

    Returns:
        dispatch_seconds: per trial that does nothing.
        data_bytes and transfer_seconds: of the splits to another node.
        checkpoint_bytes and checkpoint_seconds: of a checkpoint that is sent to the driver's node.
        checkpoint_interval: seconds of training between two checkpoints, at least.
    """
    from fashion.models.checkpoints import INTERVAL

    with cluster([[core] for core in cores]):
        ends = sorted(result["ended"] for result in run(timed.nothing, EMPTY_TRIALS, model, settings, None))
        second_half = ends[EMPTY_TRIALS // 2 :]  # when the workers of both nodes have started
        (trained,) = run(timed.checkpoint, 1, model, settings, data)
        transfer, checkpoint = transfers(data, trained["bytes"])
    return {
        "dispatch_seconds": (second_half[-1] - second_half[0]) / (len(second_half) - 1),
        "data_bytes": sum(split.images.nbytes + split.labels.nbytes for split in data.values()),
        "transfer_seconds": transfer,
        "checkpoint_bytes": trained["bytes"],
        "checkpoint_seconds": checkpoint,
        "checkpoint_interval": INTERVAL,
    }


def transfers(data: Any, checkpoint_bytes: int) -> tuple[float, float]:
    """Return the median seconds of the data to the cluster's other node, and of a checkpoint from there into a file."""
    with tempfile.TemporaryDirectory() as folder, connect({"benchmarks"}) as ray:
        here = ray.get_runtime_context().get_node_id()
        (there,) = (node["NodeID"] for node in ray.nodes() if node["NodeID"] != here)

        def on(node: str, function: Any) -> Any:
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            return ray.remote(function).options(num_cpus=0, scheduling_strategy=strategy)

        receive, send = on(there, timed.receive), on(there, timed.send)
        writer = on(here, trials.CheckpointWriter).remote(Path(folder))

        def seconds(argument: Any) -> float:
            started = time.perf_counter()
            ray.get(receive.remote(argument))
            return time.perf_counter() - started

        def write() -> float:
            return float(ray.get(send.remote(writer, bytes(checkpoint_bytes))))

        seconds(None), write()  # starts the workers
        stored = [ray.put(data) for _ in range(ROUNDS)]
        return (
            statistics.median(seconds(one) - seconds(one) for one in stored),  # the second time, the node has them
            statistics.median(write() for _ in range(ROUNDS)),
        )


def run(
    function: trials.Train, count: int, model: str, settings: TrainingParams, data: Any, *, cores: int = 1
) -> list[dict[str, Any]]:
    """Run a number of equal trials on the cluster at RAY_ADDRESS; return their results."""
    equal = [trials.Trial("benchmark", model, number, settings, f"benchmark-{number}") for number in range(count)]
    with tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stdout(io.StringIO()):
        return trials.run(equal, lambda: data, function, cores=cores)


def busy_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals, given by their start and end."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def gaps(results: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the seconds between the end of a trial and the start of the next one in the same process."""
    ordered = sorted(results, key=lambda result: (result["process"], result["started"]))
    return [
        after["started"] - before["ended"]
        for before, after in itertools.pairwise(ordered)
        if before["process"] == after["process"]
    ]


if __name__ == "__main__":
    run_command(main)
