"""Put the parts of a transferred network together: raw pixels in, probabilities out, as every model of the project."""

import argparse
from pathlib import Path

from fashion.errors import run_command


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.assemble", description=__doc__)
    parser.add_argument("front", type=Path, help="first part (.keras)")
    parser.add_argument("tail", type=Path, help="second part (.keras), which takes what the first gives")
    parser.add_argument("model", type=Path, help="model to write (.keras)")
    args = parser.parse_args()

    import keras

    from fashion.models import saving

    front, tail = saving.load(args.front), saving.load(args.tail)
    images = keras.Input(front.input_shape[1:], dtype=front.input.dtype)
    saving.save(keras.Model(images, tail(front(images)), name=args.model.parent.name), args.model)


if __name__ == "__main__":
    run_command(main)
