"""Train all variants with their seeds, and compare fine-tuning with the CNN."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion.errors import run_command
from fashion.params import Params, load_params
from fashion.validation import read_yaml, validated
from studies.transfer.params import Settings, Study

if TYPE_CHECKING:
    import pandas as pd

    from fashion.trials import Trial

COMPARED = ("cnn", "finetuned")  # base and head
TESTED = "100"  # images per class, for McNemar's test


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.train", description=__doc__)
    parser.add_argument("study", type=Path, help="params.yaml of the study")
    parser.add_argument("train", type=Path, help="training split (folder)")
    parser.add_argument("validation", type=Path, help="validation split (folder)")
    parser.add_argument("test", type=Path, help="test split (folder)")
    parser.add_argument("results", type=Path, help="results to write, a row per trial (.csv)")
    parser.add_argument("comparison", type=Path, help="comparison of the two methods to write (.json)")
    parser.add_argument("--fresh", action="store_true", help="run all trials, even those that already have results")
    args = parser.parse_args()
    params = load_params()
    study = validated(Study, read_yaml(args.study), str(args.study))

    import pandas as pd

    import fashion.models  # noqa: F401 - before others import Keras, whose messages it hides
    from fashion import trials
    from fashion.files import list_folder, write_json, write_text
    from studies.transfer import features, methods

    splits = {name: getattr(args, name) for name in ("train", "validation", "test")}
    data = {name: list_folder(folder) for name, folder in splits.items()}
    declared = declare(study, params, data)
    results = pd.DataFrame(
        trials.run(
            declared,
            lambda: features.load(study, trials.load(splits), features.key(study, data)),
            methods.train,
            fresh=args.fresh,
        )
    ).rename(columns={"model": "method"})
    results.insert(2, "images", [str(trial.settings.images) for trial in declared])
    write_text(args.results, results.drop(columns=["variant", "correct"]).to_csv(index=False))
    write_json(args.comparison, compare(results))


def declare(study: Study, params: Params, data: Mapping[str, Mapping[str, str]]) -> "list[Trial]":
    """Return the trials, variant by variant and seed by seed.

    Args:
        study: what to train.
        params: the whole of the project's params.yaml.
        data: the MD5 of each file of the splits.

    Raises:
        UserError: as for `fashion.models.networks.params_of`.
    """
    from fashion.models import cnn, dnn, networks, training
    from fashion.trials import Trial
    from studies.transfer import features, methods

    own = {"cnn": cnn, "dnn": dnn}  # imported so that dvc.yaml has their params, see fashion/dvc_deps.py
    code = Path(methods.__file__).read_text(encoding="utf-8")
    trials = []
    for name, variant in study.variants.items():
        for seed in variant.seeds or study.seeds:
            if variant.method in own:
                settings = training.fix_precision(
                    networks.params_of(variant.method, params, {**study.own, "seed": seed})
                )
                key = networks.training_key(variant.method, settings, data)
            else:
                settings, key = getattr(study, variant.method), features.key(study, data)
            key = features.digest(key, variant.images, seed, settings.model_dump(mode="json"), code)
            trials.append(Trial(name, variant.method, seed, Settings(variant.images, settings), key))
    return trials


def compare(results: "pd.DataFrame") -> dict[str, Any]:
    """Compare the methods `COMPARED`: differences in accuracy by number of images, and McNemar's tests by seed.

    Args:
        results: method, images (text), seed, accuracy and correct (see `methods.pack`).
    """
    from fashion.evaluation.significance import holm, mcnemar
    from studies.transfer.methods import unpack

    base, head = COMPARED
    accuracies = results.pivot(index=["images", "seed"], columns="method", values="accuracy")
    differences = (accuracies[head] - accuracies[base]).dropna().groupby("images").agg(["mean", "std"]).dropna()
    tested = results[(results["images"] == TESTED) & results["method"].isin(COMPARED)]
    correct = tested.pivot(index="seed", columns="method", values="correct").dropna().map(unpack)
    tests = {seed: mcnemar(row[base], row[head]) for seed, row in correct.iterrows()}
    adjusted = holm([test.p_value for test in tests.values()])
    return {
        "base": base,
        "head": head,
        "differences": differences.to_dict("index"),
        "images": TESTED,
        "seeds": {
            seed: {"fixed": test.fixed, "broken": test.broken, "p_value": p_value}
            for (seed, test), p_value in zip(tests.items(), adjusted, strict=True)
        },
    }


if __name__ == "__main__":
    run_command(main)
