"""Compute the feature maps and the features of all images, once for all trainings."""

import argparse
import time
from pathlib import Path

import numpy as np

from fashion.errors import run_command

BATCH_SIZE = 500
DTYPE = np.dtype(np.float16)


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer.features", description=__doc__)
    parser.add_argument("frozen", type=Path, help="frozen part of the backbone (.keras)")
    parser.add_argument("trainable", type=Path, help="trainable part of the backbone (.keras)")
    parser.add_argument("split", type=Path, help="split (folder)")
    parser.add_argument("maps", type=Path, help="feature maps to write, outputs of the frozen part (.npy)")
    parser.add_argument("features", type=Path, help="features to write, outputs of the trainable part (.npy)")
    parser.add_argument("cost", type=Path, help="computing times to write, in seconds (.json)")
    parser.add_argument("--mirrored", type=Path, help="feature maps of the mirrored images to write (.npy)")
    args = parser.parse_args()

    import keras
    import tensorflow as tf
    from tqdm import tqdm

    from fashion.data import dataset
    from fashion.files import atomic_write, write_json
    from fashion.models import saving

    frozen, trainable = saving.load(args.frozen), saving.load(args.trainable)
    images = dataset.load(args.split).images

    def compute(part: keras.Model, inputs: np.ndarray, path: Path) -> float:
        """Write the outputs of a part batch by batch, so that they need not fit into memory; return the seconds."""
        forward = tf.function(lambda batch: part(batch, training=False), autograph=False, reduce_retracing=True)
        started = time.perf_counter()
        with atomic_write(path) as file:
            shape = (len(inputs), *part.output_shape[1:])
            np.lib.format.write_array_header_1_0(file, {"descr": DTYPE.str, "fortran_order": False, "shape": shape})
            for start in tqdm(
                range(0, len(inputs), BATCH_SIZE), desc=path.stem, unit_scale=BATCH_SIZE, unit=" images", disable=None
            ):
                batch = inputs[start : start + BATCH_SIZE].astype(part.input.dtype)
                file.write(forward(batch).numpy().astype(DTYPE).tobytes())
        seconds = time.perf_counter() - started
        print(f"{path.stem}: {len(inputs):,} images, {seconds:.0f} s", flush=True)
        return round(seconds, 1)

    cost = {"maps": compute(frozen, images, args.maps)}
    cost["features"] = compute(trainable, np.load(args.maps, mmap_mode="r"), args.features)
    if args.mirrored:
        cost["mirrored"] = compute(frozen, images[:, :, ::-1], args.mirrored)
    write_json(args.cost, cost)


if __name__ == "__main__":
    run_command(main)
