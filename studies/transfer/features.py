"""Compute once what the frozen part of a network makes of every image, and the features that follow from it."""

import argparse
import time
from pathlib import Path
from typing import IO

import numpy as np

from fashion.errors import run_command

BATCH = 500  # images
DTYPE = np.dtype(np.float16)


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.features", description=__doc__)
    parser.add_argument("front", type=Path, help="first part of the network (.keras)")
    parser.add_argument("tail", type=Path, help="second part of the network (.keras)")
    parser.add_argument("split", type=Path, help="images (.npz)")
    parser.add_argument("maps", type=Path, help="outputs of the first part to write (.npy): 2 x n, as is and mirrored")
    parser.add_argument("features", type=Path, help="features of the images as they are, to write (.npy)")
    parser.add_argument("cost", type=Path, help="seconds that it took, to write (.json)")
    args = parser.parse_args()

    import tensorflow as tf
    from tqdm import tqdm

    from fashion.data import dataset
    from fashion.files import atomic_write, write_json
    from fashion.models import archive

    front, tail = archive.load(args.front), archive.load(args.tail)
    images = dataset.load(args.split).images

    def forward(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        maps = front(batch, training=False)
        return maps, tail(maps, training=False)

    compute = tf.function(forward, autograph=False, reduce_retracing=True)

    started = time.perf_counter()
    with atomic_write(args.maps) as maps_file, atomic_write(args.features) as features_file:
        _start(maps_file, (2, len(images), *front.output_shape[1:]))
        _start(features_file, (len(images), *tail.output_shape[1:]))
        for mirrored in (False, True):
            what = f"{args.split.stem}, mirrored" if mirrored else args.split.stem
            for start in tqdm(range(0, len(images), BATCH), desc=what, unit_scale=BATCH, unit=" images", disable=None):
                batch = images[start : start + BATCH]
                maps, features = compute(batch[:, :, ::-1] if mirrored else batch)
                maps_file.write(maps.numpy().astype(DTYPE).tobytes())
                if not mirrored:
                    features_file.write(features.numpy().astype(DTYPE).tobytes())
            print(f"{what}: {len(images):,} images", flush=True)
    write_json(args.cost, {"seconds": round(time.perf_counter() - started, 1)})


def _start(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """Write the head of an .npy file whose numbers follow, batch by batch, so that they are never held all at once."""
    np.lib.format.write_array_header_1_0(file, {"descr": DTYPE.str, "fortran_order": False, "shape": shape})


if __name__ == "__main__":
    run_command(main)
