"""Join the frozen part and a fine-tuned part into one model: raw pixels in, probabilities out."""

import argparse
from pathlib import Path

from fashion.errors import run_command


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.assemble", description=__doc__)
    parser.add_argument("frozen", type=Path, help="frozen part (.keras)")
    parser.add_argument("finetuned", type=Path, help="fine-tuned part with the classifier (.keras)")
    parser.add_argument("model", type=Path, help="model to write (.keras)")
    args = parser.parse_args()

    import keras

    from fashion.models import saving

    frozen, finetuned = saving.load(args.frozen), saving.load(args.finetuned)
    images = keras.Input(frozen.input_shape[1:], dtype=frozen.input.dtype)
    saving.save(keras.Model(images, finetuned(frozen(images)), name=args.model.parent.name), args.model)


if __name__ == "__main__":
    run_command(main)
