"""The figures of the benchmarks, for people."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.trial import SHORT


def markdown(results: Mapping[str, Any]) -> str:
    """Return the report of the results as benchmarks/run.py writes them to reports/benchmarks.json."""
    machine = results["machine"]
    return (
        "\n\n".join(
            [
                "# Benchmarks",
                f"Measured by `make bench` at commit {machine['commit']} on {machine['cores']} cores of "
                f"{machine['processor']} ({', '.join(machine['instructions'])}), {machine['system']}, Python "
                f"{machine['python']}, TensorFlow {machine['tensorflow']}, Keras {machine['keras']}. Elsewhere "
                "the times differ, and the ratios less. Accuracies are of single models, on the test images.",
                "## 1. Time to accuracy",
                "T_ref is the time that the CNN of Keras tutorials takes to train: two convolutions with max pooling, "
                "a third, a dense layer; Adam, batches of 32, ten epochs, float32, TensorFlow as it is installed. "
                f"`cnn-short` is the CNN trained for {SHORT['epochs']} epochs.",
                _time_to_accuracy(results),
                f"The network of studies/deep takes {results['deep']['seconds']:.0f} seconds a seed, "
                f"{results['train_time_ratio']['deep']:.1f} times T_ref (of {results['deep']['tutorial_seconds']:.0f} "
                f"seconds, at commit {results['deep']['commit']}), at the rate of its first "
                f"{results['deep']['timed_epochs']} epochs of {results['deep']['epochs']}.",
                "## 2. How much of the machine a training step uses",
                "Multiplications and additions of convolutions and dense layers, per second, against a product of two "
                "2048 x 2048 matrices in the same precision.",
                _utilisation(results["utilisation"]),
                "## 3. How cost grows with the data",
                "One pass of the CNN over the training images once, twice, four and eight times, without selection.",
                _growth(results["growth"]),
                "## 4. What is not training",
                _no_op(results["overhead"]["no_op_seconds"]),
                _starts(results["overhead"]["stage_start_seconds"]),
                "## 5. Against the public peer",
                "iterative/demo-fashion-mnist trains on all 60,000 images; ours keep 5,000 of them for validation.",
                _peer(results["time_to_accuracy"]),
                "## 6. Answers of exported models",
                _serving(results["serving"]),
                _load(results["load"]),
            ]
        )
        + "\n"
    )


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _median(trials: list[Mapping[str, Any]], key: str) -> float:
    return float(statistics.median(trial[key] for trial in trials))


def _time_to_accuracy(results: Mapping[str, Any]) -> str:
    return _table(
        ["Model", "Test accuracy, mean", "of each seed", "Seconds, median", "of each seed", "Multiple of T_ref"],
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
        f"`{name}` ({figures['precision']}): {figures['step_gflops']:.0f} of {figures['matrix_product_gflops']:.0f} "
        f"GFLOP/s, a share of {figures['share_of_matrix_product']:.2f}. Where the time of its operations goes:\n\n"
        + _table(["Operation", "Share"], ([kind, f"{share:.1%}"] for kind, share in figures["profile"].items()))
        for name, figures in utilisation.items()
    )


def _growth(growth: list[Mapping[str, Any]]) -> str:
    first = growth[0]
    return _table(
        [
            "Images",
            "Time per image, relative",
            "Data, MB",
            "Peak memory, MB",
            "Growth per byte of data",
        ],
        (
            [
                f"{row['images']:,}",
                f"{row['seconds_per_image'] / first['seconds_per_image']:.2f}",
                f"{row['data_bytes'] / 1e6:.0f}",
                f"{row['peak_bytes'] / 1e6:.0f}",
                f"{(row['peak_bytes'] - first['peak_bytes']) / (row['data_bytes'] - first['data_bytes']):.1f}"
                if row is not first
                else "-",
            ]
            for row in growth
        ),
    )


def _no_op(seconds: Mapping[str, list[float]]) -> str:
    here, empty = (statistics.median(seconds[name]) for name in ("this project", "empty project"))
    return (
        f"`dvc repro` with nothing to do: {here:.2f} s here, {empty:.2f} s in a project of one empty stage, a ratio of "
        f"{here / empty:.2f}."
    )


def _serving(serving: Mapping[str, Any]) -> str:
    ours, keras = (statistics.median(serving["first_answer_seconds"][name]) for name in ("fashion predict", "Keras"))
    rates = (f"{name} {serving['pictures'] / min(times):,.0f}" for name, times in serving["bulk_seconds"].items())
    return (
        f"A fresh process answers a test image in {ours:.2f} s with `fashion predict`, in {keras:.2f} s with the Keras "
        f"model, {keras / ours:.1f} times as long. Pictures a second, start and output included, of "
        f"{serving['pictures']:,} PNG files in one call: {', '.join(rates)}. (Commit {serving['commit']}.)"
    )


def _load(load: Mapping[str, Any]) -> str:
    latency = load["latency_seconds"]
    return (
        f"`fashion demo` under load, {load['clients']} clients on the same cores that ask again as soon as they are "
        f"answered, for {load['seconds']:.0f} seconds: {load['asked']:,} pictures asked of all models, "
        f"{load['lost_or_wrong']} lost or answered otherwise than alone; half within {latency['median']:.2f} s, 95 % "
        f"within {latency['95 %']:.2f} s, all within {latency['largest']:.2f} s. (Commit {load['commit']}.)"
    )


def _starts(starts: Mapping[str, Mapping[str, float]]) -> str:
    return _table(
        ["Stage", "Arguments and params, s", "Libraries and inputs, s"],
        (
            [stage, f"{seconds['arguments_and_params']:.1f}", f"{seconds['libraries_and_inputs']:.1f}"]
            for stage, seconds in starts.items()
        ),
    )


def _peer(trials: Mapping[str, list[Mapping[str, Any]]]) -> str:
    peer = statistics.mean(trial["accuracy"] for trial in trials["demo"])
    return _table(
        ["Ours", "Accuracy over the peer's, points", "Time over the peer's"],
        (
            [
                name,
                f"{100 * (statistics.mean(trial['accuracy'] for trial in trials[name]) - peer):+.2f}",
                f"{_median(trials[name], 'seconds') / _median(trials['demo'], 'seconds'):.2f}",
            ]
            for name in trials
            if name not in ("demo", "tutorial")
        ),
    )
