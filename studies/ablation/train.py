"""Train one variant of the CNN with one seed, and record its validation accuracy and processor time."""

import argparse
from pathlib import Path

from fashion.errors import UserError, run_command
from fashion.params import load_params
from fashion.validation import merged, read_yaml

VARIANTS = Path(__file__).with_name("params.yaml")


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.ablation.train", description=__doc__)
    parser.add_argument("variant", help=f"name of a variant in {VARIANTS.name}")
    parser.add_argument("seed", type=int)
    parser.add_argument("train", type=Path, help="training split (folder)")
    parser.add_argument("validation", type=Path, help="validation split (folder)")
    parser.add_argument("trial", type=Path, help="trial to write (.json)")
    args = parser.parse_args()
    params = load_params()

    import time

    from fashion.data import dataset
    from fashion.files import write_json
    from fashion.models import cnn, networks, training
    from fashion.models.input_pipeline import batches

    study = read_yaml(VARIANTS)
    if args.variant not in study["variants"]:
        raise UserError(f"{VARIANTS.name} has no variant {args.variant}; it has {', '.join(study['variants'])}")
    changes = merged(study["all"] | {"seed": args.seed}, study["variants"][args.variant])
    settings = networks.params_of("cnn", params, changes)
    train, validation = dataset.load(args.train), dataset.load(args.validation)

    started = time.process_time()  # of all threads; wall time would include other processes
    model, _ = training.train(cnn, settings, train, validation)
    seconds = time.process_time() - started
    final = model.evaluate(batches(validation), verbose=0, return_dict=True)  # with averaged weights, if any
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
