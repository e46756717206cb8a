"""Train the variants of a study with all its seeds, side by side on all cores or, with RAY_ADDRESS, on a cluster."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.study", description=__doc__)
    parser.add_argument("study", type=Path, help="params.yaml of the study")
    parser.add_argument("train", type=Path, help="training split (folder)")
    parser.add_argument("validation", type=Path, help="validation split (folder)")
    parser.add_argument("trials", type=Path, help="results to write, a row per trial (.csv)")
    parser.add_argument("--test", type=Path, metavar="FOLDER", help="test split, to evaluate the models on it, too")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="cores per trial (default: 1)")
    parser.add_argument("--fresh", action="store_true", help="run all trials, even those that already have results")
    args = parser.parse_args()
    params = load_params()

    import pandas as pd

    from fashion import study, trials
    from fashion.files import write_text

    splits = {"train": args.train, "validation": args.validation} | ({"test": args.test} if args.test else {})
    declared = trials.of_study(study.read(args.study, params.models), params, splits, args.cores)
    results = trials.run(declared, lambda: trials.load(splits), cores=args.cores, fresh=args.fresh)
    write_text(args.trials, pd.DataFrame(results).to_csv(index=False))


if __name__ == "__main__":
    run_command(main)
