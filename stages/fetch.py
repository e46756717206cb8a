"""Download the raw files of the data set from the first source that has them, and verify their SHA-256."""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.fetch", description=__doc__)
    parser.add_argument("raw", type=Path, help="folder to write the four IDX files to")
    args = parser.parse_args()
    params = load_params()

    from fashion.data import sources

    fetch = params.fetch
    sources.fetch(dict(fetch.files), fetch.sources, args.raw, fetch.timeout, fetch.retries)


if __name__ == "__main__":
    run_command(main)
