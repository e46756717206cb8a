"""Download the raw files of the data set and verify their SHA-256, or read the images of a folder.

A file comes from the first source that has it.
"""

import argparse
from pathlib import Path

from fashion.errors import run_command
from fashion.params import FolderParams, load_params


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m stages.fetch", description=__doc__)
    parser.add_argument("raw", type=Path, help="folder to write to: four IDX files, or the splits train and test")
    args = parser.parse_args()
    params = load_params()

    fetch = params.fetch
    if isinstance(fetch, FolderParams):
        from fashion.data import folder

        classes, shape = params.dataset.classes, params.dataset.image_shape
        source = Path(fetch.folder)
        folder.convert(source, args.raw, classes, shape, fetch.unreadable, fetch.test_fraction, fetch.seed)
    else:
        from fashion.data import sources

        sources.fetch(dict(fetch.files), fetch.sources, args.raw, fetch.timeout, fetch.retries, fetch.deadline)


if __name__ == "__main__":
    run_command(main)
