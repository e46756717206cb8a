"""Train the dense network on the training split."""

from fashion.errors import run_command
from stages import training


def main() -> None:
    """Run the stage."""
    args = training.parse_arguments("train_dnn", __doc__)

    from fashion.models import dnn

    training.train(dnn, args)


if __name__ == "__main__":
    run_command(main)
