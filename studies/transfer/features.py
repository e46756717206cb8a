"""Compute once what the frozen part of a network makes of every image, and the features that follow from it."""

import argparse
import time
from pathlib import Path

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
    parser.add_argument("maps", type=Path, help="outputs of the first part to write (.npy)")
    parser.add_argument("features", type=Path, help="outputs of the second part to write (.npy)")
    parser.add_argument("cost", type=Path, help="seconds that each took, to write (.json)")
    parser.add_argument("--mirrored", type=Path, help="outputs of the first part for mirrored images to write (.npy)")
    args = parser.parse_args()

    import keras
    import tensorflow as tf
    from tqdm import tqdm

    from fashion.data import dataset
    from fashion.files import atomic_write, write_json
    from fashion.models import saving

    front, tail = saving.load(args.front), saving.load(args.tail)
    images = dataset.load(args.split).images

    def compute(part: keras.Model, inputs: np.ndarray, path: Path) -> float:
        """Write what a part of the network gives, batch by batch, so that it is never held all at once."""
        forward = tf.function(lambda batch: part(batch, training=False), autograph=False, reduce_retracing=True)
        started = time.perf_counter()
        with atomic_write(path) as file:
            shape = (len(inputs), *part.output_shape[1:])
            np.lib.format.write_array_header_1_0(file, {"descr": DTYPE.str, "fortran_order": False, "shape": shape})
            for start in tqdm(
                range(0, len(inputs), BATCH), desc=path.stem, unit_scale=BATCH, unit=" images", disable=None
            ):
                batch = inputs[start : start + BATCH].astype(part.input.dtype)
                file.write(forward(batch).numpy().astype(DTYPE).tobytes())
        seconds = time.perf_counter() - started
        print(f"{path.stem}: {len(inputs):,} images, {seconds:.0f} s", flush=True)
        return round(seconds, 1)

    cost = {"maps": compute(front, images, args.maps)}
    cost["features"] = compute(tail, np.load(args.maps, mmap_mode="r"), args.features)
    if args.mirrored:
        cost["mirrored"] = compute(front, images[:, :, ::-1], args.mirrored)
    write_json(args.cost, cost)


if __name__ == "__main__":
    run_command(main)
