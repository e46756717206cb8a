"""Put the parts of a transferred network together: raw pixels in, probabilities out, as every model of the project."""

import argparse
from pathlib import Path

from fashion.errors import run_command


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.assemble", description=__doc__)
    parser.add_argument(
        "parts", type=Path, nargs="+", help="models (.keras), each of which takes what the one before gives"
    )
    parser.add_argument("model", type=Path, help="model to write (.keras)")
    args = parser.parse_args()

    import keras

    from fashion.models import archive

    parts = [archive.load(path) for path in args.parts]
    outputs = inputs = keras.Input(parts[0].input_shape[1:], dtype=parts[0].input.dtype)
    for part in parts:
        outputs = part(outputs)
    archive.save(keras.Model(inputs, outputs, name=args.model.parent.name), args.model)


if __name__ == "__main__":
    run_command(main)
