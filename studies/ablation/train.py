"""Train one variant of the CNN with one seed; record its accuracy on the validation images and the processor time."""

import argparse
from pathlib import Path

from fashion.errors import UserError, run_command
from fashion.params import change, load_params, read_yaml

VARIANTS = Path(__file__).with_name("params.yaml")


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(prog="python -m studies.ablation.train", description=__doc__)
    parser.add_argument("variant", help=f"one of those in {VARIANTS.name}")
    parser.add_argument("seed", type=int)
    parser.add_argument("train", type=Path, help="training split (.npz)")
    parser.add_argument("validation", type=Path, help="validation split (.npz)")
    parser.add_argument("trial", type=Path, help="trial to write (.json)")
    args = parser.parse_args()
    params = load_params()

    import time

    from fashion.data import dataset
    from fashion.files import write_json
    from fashion.models import cnn, training

    study = read_yaml(VARIANTS)
    if args.variant not in study["variants"]:
        raise UserError(f"no variant {args.variant}; there are {', '.join(study['variants'])}")
    settings = change(change(params.cnn, study["all"] | {"seed": args.seed}), study["variants"][args.variant])
    train, validation = dataset.load(args.train), dataset.load(args.validation)

    started = time.process_time()  # of all threads; wall time would also count what else the machine does
    model, _ = training.train(cnn.build, settings, train, validation)
    seconds = time.process_time() - started
    final = model.evaluate(training.batches(validation, settings), verbose=0, return_dict=True)  # of averaged weights
    write_json(
        args.trial,
        {
            "variant": args.variant,
            "seed": args.seed,
            "accuracy": final["accuracy"],
            "seconds": seconds,
            "parameters": model.count_params(),
        },
    )


if __name__ == "__main__":
    run_command(main)
