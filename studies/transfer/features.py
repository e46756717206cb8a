"""The feature maps of all images, computed once for all trials."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float16
from tqdm import tqdm

from fashion import parent
from fashion.data.dataset import Images, Split, npy_header
from fashion.files import atomic_write, read_json, write_json
from studies.transfer import backbones
from studies.transfer.params import Study

FOLDER = Path(".dvc", "tmp", "transfer")
BATCH_SIZE = 100
DTYPE = np.dtype(np.float16)
ROOT = Path(__file__).parents[2]
CODE = (
    "fashion/data/dataset.py",
    "fashion/models/layers.py",
    "studies/transfer/backbones.py",
    "studies/transfer/checkpoint.py",
    "studies/transfer/efficientnet.py",
    "studies/transfer/features.py",
)

Maps = Float16[np.ndarray, "n height width filters"]


@dataclass(frozen=True)
class Inputs:
    """What the trials train with.

    Attributes:
        splits: "train", "validation" and "test".
        maps: feature maps of each split, and of the "mirrored" training images.
        seconds: processor time in which the feature maps of one image are computed.
        backbone: name of the network.
        image_size: height and width that the images are resized to, in pixels.
    """

    splits: Mapping[str, Split]
    maps: Mapping[str, Maps]
    seconds: float
    backbone: str
    image_size: int


def digest(*values: Any) -> str:
    """Return a hash of values that JSON can express, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def key(study: Study, data: Mapping[str, Mapping[str, str]]) -> str:
    """Return a hash of what the feature maps depend on; `data` has the MD5 of each file of the splits."""
    code = [(ROOT / path).read_text(encoding="utf-8") for path in CODE]
    return digest(study.backbone, study.image_size, data, code, tf.__version__, keras.__version__)


def load(study: Study, splits: Mapping[str, Split], name: str) -> Inputs:
    """Return what the trials train with; compute the feature maps that are not in the folder `name`, their `key`.

    Raises:
        UserError: there is no such backbone, its weights are missing, or DVC has been killed.
    """
    folder = FOLDER / name
    parts = {part: split.images for part, split in splits.items()}
    parts["mirrored"] = parts["train"][:, :, ::-1]
    if not (folder / "seconds.json").exists():
        shutil.rmtree(FOLDER, ignore_errors=True)  # with those of other keys: each take a gigabyte
        seconds = _compute(study, parts, folder)
        write_json(folder / "seconds.json", seconds)  # at last: all files are complete
    maps = {part: np.asarray(np.load(folder / f"{part}.npy", mmap_mode="r")) for part in parts}
    return Inputs(splits, maps, read_json(folder / "seconds.json"), study.backbone, study.image_size)


def _compute(study: Study, parts: Mapping[str, Images], folder: Path) -> float:
    """Write the feature maps of images batch by batch; return the processor time per image, in seconds."""
    # As in the trials, whose time is compared: an operation uses one thread, and all cores are busy.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")  # this process would keep their memory from the trials
    image_shape = parts["train"].shape[1:]
    frozen, _ = backbones.split(study.backbone, image_shape, study.image_size, "imagenet")
    signature = tf.TensorSpec((None, *image_shape), tf.uint8)
    forward = tf.function(lambda batch: frozen(batch, training=False), [signature], autograph=False)
    count = sum(map(len, parts.values()))
    bar = tqdm(desc="feature maps", total=count, unit=" images", dynamic_ncols=True, disable=None)
    started = time.process_time()
    with ThreadPool(os.cpu_count()) as pool, bar:
        for part, images in parts.items():
            batches = (images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE))
            with atomic_write(folder / f"{part}.npy") as file:
                file.write(npy_header(DTYPE, (len(images), *frozen.output_shape[1:])))
                for maps in pool.imap(lambda batch: forward(batch).numpy().astype(DTYPE), batches):
                    file.write(maps.data)
                    bar.update(len(maps))
                    parent.check()
    return (time.process_time() - started) / count
