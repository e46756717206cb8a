"""The results of the benchmarks as Markdown."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.trial import BASELINES

PHASES = ("training", "evaluation", "export")
TRIALS, NODES = 200, (1, 2, 10, 100)  # to extrapolate to
TITLES = {"bfloat16": "With bfloat16 instructions", "float32": "Without bfloat16 instructions"}
NETWORK = 125e6  # bytes per second: 1 Gbit/s


def markdown(machines: Mapping[str, Any]) -> str:
    """Return the report on the results, as benchmarks/run.py writes them to reports/benchmarks.json.

    Args:
        machines: the results by precision of the machine, bfloat16 or float32. Only the part `training` is
            required; sections for other missing parts are left out.
    """
    sections = (f"## {TITLES[kind]}\n\n{_machine(results)}" for kind, results in machines.items())
    return "\n\n".join(["# Benchmarks", *sections]) + "\n"


def _machine(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    variants = (
        f"`{name}` is the {changes['model'].upper()} with "
        + ", ".join(f"`{key}: {value}`" for key, value in changes.items() if key != "model")
        + "."
        for name, changes in results["variants"].items()
        if name in results["time_to_accuracy"]
    )
    parts = [
        f"Measured by `make bench` at commit {machine['commit']} on {machine['cores']} cores of "
        f"{machine['processor']} ({', '.join(machine['instructions'])}), {machine['system']}, Python "
        f"{machine['python']}, TensorFlow {machine['tensorflow']}, Keras {machine['keras']}. On other "
        "machines, times differ more than ratios. Accuracies are test accuracies of single models.",
        "### Time to accuracy",
        "T_ref is the training time of the CNN of the Keras tutorials: two convolutions with max pooling, a "
        "third convolution and a dense layer; Adam, batches of 32, ten epochs, float32, TensorFlow's default "
        "settings. `demo` is the network of iterative/demo-fashion-mnist; it is also trained on the validation images. "
        + " ".join(variants),
        _time_to_accuracy(results),
    ]
    if deep := results.get("deep"):
        parts.append(
            f"One training run of studies/deep takes {deep['seconds']:.0f} s, "
            f"{results['train_time_ratio']['deep']:.1f} times the T_ref of {deep['tutorial_seconds']:.0f} s "
            f"measured with it; extrapolated from the first {deep['timed_epochs']} of {deep['epochs']} epochs. "
            f"(Commit {deep['commit']}.)"
        )
    parts += [
        "Compared with `demo`:",
        _baseline(results["time_to_accuracy"]),
        "### Utilisation of the processor",
        "The table compares the FLOP/s of the convolutions and dense layers during training with those of a "
        "product of two 2048 x 2048 matrices in the same precision.",
        _utilisation(results["utilisation"]),
    ]
    if scaling := results.get("scaling"):
        parts += [
            "### Scaling with the number of images",
            f"`{scaling['model']}` is trained, with hard-example mining, on copies of the training images; then it "
            "predicts, and the export computes features and statistics. Splits are memory-mapped, so the memory is the "
            f"growth of anonymous memory per added byte of images. (Commit {scaling['commit']}.)",
            _scaling(scaling["runs"]),
        ]
    seconds = results["overhead"]["help_seconds"].values()
    parts += ["### Overhead", f"`--help` of a stage takes {min(seconds):.2f} to {max(seconds):.2f} s."]
    if dvc := results.get("dvc"):
        parts.append(_dvc(dvc))
    predictions = {"serving": _serving, "load_test": _load_test}
    if found := [render(results[part]) for part, render in predictions.items() if part in results]:
        parts += ["### Prediction with exported models", *found]
    if trials := results.get("trials"):
        parts += _trials(trials)
    return "\n\n".join(parts)


def _table(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def _median(trials: list[Mapping[str, Any]], key: str) -> float:
    return float(statistics.median(trial[key] for trial in trials))


def _time_to_accuracy(results: Mapping[str, Any]) -> str:
    return _table(
        ["Model", "Mean test accuracy", "Test accuracy by seed", "Median time, s", "Time by seed, s", "Time, x T_ref"],
        (
            [
                name,
                f"{statistics.mean(trial['accuracy'] for trial in trials):.2%}",
                " ".join(f"{trial['accuracy']:.2%}" for trial in trials),
                f"{_median(trials, 'seconds'):.0f}",
                " ".join(f"{trial['seconds']:.0f}" for trial in trials),
                f"{results['train_time_ratio'][name]:.2f}",
            ]
            for name, trials in results["time_to_accuracy"].items()
        ),
    )


def _utilisation(utilisation: Mapping[str, Any]) -> str:
    return "\n\n".join(
        f"`{name}` ({values['precision']}): {values['step_gflops']:.0f} of {values['matrix_product_gflops']:.0f} "
        f"GFLOP/s, {values['share_of_matrix_product']:.0%}.{_compared(values.get('step_relative_to_keras'))} "
        "The slowest operations:\n\n"
        + _table(["Operation", "Time"], ([kind, f"{share:.1%}"] for kind, share in values["profile"].items()))
        for name, values in utilisation.items()
    )


def _compared(ratio: float | None) -> str:
    return f" With `FastConv2D`, a step takes {ratio:.2f} times as long as with Keras' `Conv2D`." if ratio else ""


def _scaling(scaling: list[Mapping[str, Any]]) -> str:
    first = scaling[0]

    def growth(row: Mapping[str, Any], key: str) -> str:
        if row is first:
            return "-"
        return f"{(row[key] - first[key]) / (row['data_bytes'] - first['data_bytes']):.2f}"

    return _table(
        ["Images", "Data, MB", "Time per image, relative", *(f"Added memory per byte: {name}" for name in PHASES)],
        (
            [
                f"{row['images']:,}",
                f"{row['data_bytes'] / 1e6:.0f}",
                f"{row['seconds_per_image'] / first['seconds_per_image']:.2f}",
                *(growth(row, f"{name}_bytes") for name in PHASES),
            ]
            for row in scaling
        ),
    )


def _dvc(results: Mapping[str, Any]) -> str:
    medians = {
        command: {name: statistics.median(times) for name, times in by_project.items()}
        for command, by_project in results["seconds"].items()
    }
    table = _table(
        ["Command", "This project", "Without studies", "Ratio", "One empty stage", "Ratio"],
        (
            [
                f"`{command}`",
                f"{median['this project']:.2f}",
                f"{median['without studies']:.2f}",
                f"{median['this project'] / median['without studies']:.2f}",
                f"{median['one empty stage']:.2f}",
                f"{median['this project'] / median['one empty stage']:.2f}",
            ]
            for command, median in medians.items()
        ),
    )
    return (
        "Median seconds of DVC commands when everything is up to date, measured in turns in a clone of this project, "
        f"in one without studies/ and in a project of one empty stage. (Commit {results['commit']}.)\n\n{table}"
    )


def _baseline(trials: Mapping[str, list[Mapping[str, Any]]]) -> str:
    accuracy = statistics.mean(trial["accuracy"] for trial in trials["demo"])
    return _table(
        ["Model", "Accuracy difference, points", "Time ratio"],
        (
            [
                name,
                f"{100 * (statistics.mean(trial['accuracy'] for trial in trials[name]) - accuracy):+.2f}",
                f"{_median(trials[name], 'seconds') / _median(trials['demo'], 'seconds'):.2f}",
            ]
            for name in trials
            if name not in BASELINES
        ),
    )


def _serving(serving: Mapping[str, Any]) -> str:
    first = serving["first_prediction_seconds"]
    ours, keras = (statistics.median(first[name]) for name in ("fashion predict", "Keras"))
    rates = (f"{name} {serving['images'] / min(times):,.0f}" for name, times in serving["bulk_seconds"].items())
    return (
        f"A prediction for one test image takes {ours:.2f} s with `fashion predict` and {keras:.2f} s with the Keras "
        f"model, {keras / ours:.1f} times as long; both include the start of the process. `fashion predict` on "
        f"{serving['images']:,} PNG files, start and output included, reaches these rates in images per second: "
        f"{', '.join(rates)}. (Commit {serving['commit']}.)"
    )


def _load_test(load_test: Mapping[str, Any]) -> str:
    latency = load_test["latency_seconds"]
    return (
        f"Load test of `fashion demo`: for {load_test['seconds']:.0f} seconds, {load_test['clients']} clients on the "
        "same cores send an image, wait for the predictions of all models and send the next. Of "
        f"{load_test['requests']:,} requests, {load_test['failed']} failed or returned other predictions than "
        f"without load. The latency was {latency['median']:.2f} s (median), {latency['95 %']:.2f} s (95th percentile) "
        f"and at most {latency['largest']:.2f} s. (Commit {load_test['commit']}.)"
    )


def _trials(results: Mapping[str, Any]) -> list[str]:
    return [
        "### Trials",
        f"{_side_by_side(results['side_by_side'])} (Commit {results['commit']}.)",
        _growth(results["growth"]),
        _costs(results["costs"]),
        _extrapolation(results),
    ]


def _side_by_side(pairs: Mapping[str, Any]) -> str:
    side, after = (statistics.median(pairs["seconds"][way]) for way in ("side by side", "one after the other"))
    return (
        f"Two training runs of `{pairs['model']}` ({pairs['timed_epochs']} epochs) take {side:.0f} s side by side with "
        f"one thread each, and {after:.0f} s one after the other with two threads each, {after / side:.2f} times as "
        "long. Start-up is left out."
    )


def _growth(growth: Mapping[str, Any]) -> str:
    table = _table(
        ["Trials", "Nodes", "Time, s", "Start-up, s", "One training run, s", "After start-up, s per trial"],
        (
            [
                str(run["trials"]),
                str(run["nodes"]),
                f"{run['seconds']:.0f}",
                f"{run['start_seconds']:.0f}",
                f"{statistics.mean(run['training_seconds']):.1f}",
                f"{(run['seconds'] - run['start_seconds']) / run['trials']:.1f}",
            ]
            for run in growth["runs"]
        ),
    )
    return (
        f"Trials of `{growth['model']}` ({growth['timed_epochs']} epochs) on Ray clusters on this machine, with one "
        "core per node. Start-up ends when the first training run begins: Ray sends code and data, and a worker on "
        f"each node imports TensorFlow.\n\n{table}"
    )


def _costs(costs: Mapping[str, float]) -> str:
    return (
        f"On two nodes, an empty trial costs the driver {1000 * costs['dispatch_seconds']:.1f} ms. The "
        f"training and validation splits ({costs['data_bytes'] / 1e6:.0f} MB) reach the other node in "
        f"{costs['transfer_seconds']:.2f} s, by the loopback device; each node gets them once. Sending "
        f"a checkpoint of {costs['checkpoint_bytes'] / 1e6:.1f} MB to the driver's node takes "
        f"{costs['checkpoint_seconds']:.3f} s; a training run sends at most one every "
        f"{costs['checkpoint_interval']:.0f} s."
    )


def _extrapolation(trials: Mapping[str, Any]) -> str:
    pairs, costs = trials["side_by_side"], trials["costs"]
    training = pairs["training_seconds"] * pairs["epochs"] / pairs["timed_epochs"]
    times = {nodes: study_seconds(nodes, TRIALS, training, trials) for nodes in NODES}
    table = _table(
        ["Nodes", "Time, min", "Times as fast", "Efficiency"],
        (
            [str(nodes), f"{seconds / 60:.0f}", f"{times[1] / seconds:.1f}", f"{times[1] / seconds / nodes:.0%}"]
            for nodes, seconds in times.items()
        ),
    )
    busy = NODES[-1] * costs["checkpoint_seconds"] / costs["checkpoint_interval"]
    return (
        f"Extrapolated from these numbers, not measured: {TRIALS} trials of `{pairs['model']}` ({pairs['epochs']} "
        f"epochs, {training:.0f} s each) on nodes with one core of this machine each, to which the driver's node sends "
        f"the splits one after the other at 1 Gbit/s. The checkpoints of {NODES[-1]} nodes would keep the "
        f"driver's node busy for {busy:.1%} of the time.\n\n{table}"
    )


def study_seconds(nodes: int, trials: int, training_seconds: float, results: Mapping[str, Any]) -> float:
    """Return the extrapolated seconds of a study on a number of nodes that run one training at a time.

    Start-up does not grow with the nodes; sending the splits and the first trials does.
    """
    runs, costs = results["growth"]["runs"], results["costs"]
    start: float = statistics.median(run["start_seconds"] for run in runs)
    gap: float = statistics.median(gap for run in runs for gap in run["gap_seconds"])
    send: float = costs["data_bytes"] / NETWORK + costs["dispatch_seconds"]
    return start + nodes * send + math.ceil(trials / nodes) * (training_seconds + gap)
