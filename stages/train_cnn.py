"""Train the convolutional network on the training split."""

from fashion.errors import run_command
from stages import training


def main() -> None:
    """Run the stage."""
    args = training.parse_arguments("train_cnn", __doc__)

    from fashion.models import cnn

    training.train(cnn, args)


if __name__ == "__main__":
    run_command(main)
