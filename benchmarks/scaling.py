"""Measure time and memory of training and export on many copies of the training images; print them as JSON.

    python -m benchmarks.scaling MODEL TIMES

Each epoch uses all images, and hard examples are ranked before every epoch but the first. The time per image is the
difference between two trainings, of two epochs and of `IMAGES` more images. The memory is the peak of the anonymous
memory less its initial value; pages of memory-mapped files do not count, since the system may drop them.
"""

import argparse
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fashion.data import dataset
from fashion.errors import UserError, run_command
from fashion.params import load_params

STATUS = Path("/proc/self/status")  # of Linux
IMAGES = 3_520_000  # timed: two epochs of 32 copies of Fashion-MNIST
INTERVAL = 0.02  # seconds between two readings of the memory


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("model", help="name of the model in params.yaml")
    parser.add_argument("times", type=int, help="number of copies of each image")
    args = parser.parse_args()
    if not STATUS.exists():
        raise UserError(f"there is no {STATUS}: this benchmark needs Linux")
    source = dataset.load(Path("data/train"))
    with tempfile.TemporaryDirectory(dir=".dvc/tmp") as folder:
        indices = np.tile(np.arange(len(source.labels)), args.times)
        dataset.save(source, Path(folder) / "train", indices)
        del indices
        print(json.dumps(measure(args.model, dataset.load(Path(folder) / "train"))))


def measure(name: str, split: dataset.Split) -> dict[str, float]:
    """Return the time and the memory of training and export."""
    from fashion.export import convert
    from fashion.export.ood import OODDetector
    from fashion.models import networks, training
    from fashion.models.input_pipeline import batches
    from fashion.params import HardExampleParams

    params = networks.params_of(name, load_params())
    mining = HardExampleParams(epoch_fraction=0.999999, hard_fraction=0.5, refresh_every=1)
    validation = dataset.load(Path("data/validation"))
    seconds: list[float] = []
    result: dict[str, float] = {"images": len(split.labels), "data_bytes": split.images.nbytes}
    more = max(1, IMAGES // len(split.labels))
    settings = [params.model_copy(update={"hard_examples": mining, "epochs": epochs}) for epochs in (2, 2 + more)]
    training.train(networks.load(name), settings[0], validation, validation)  # warms up
    with peak_memory() as peak:
        for one in settings:
            started = time.perf_counter()
            model, _ = training.train(networks.load(name), one, split, validation)
            seconds.append(time.perf_counter() - started)
    result["seconds_per_image"] = (seconds[1] - seconds[0]) / (more * len(split.labels))
    result["training_bytes"] = peak["growth"]
    with peak_memory() as peak:
        model.predict(batches(split), verbose=0)
    result["evaluation_bytes"] = peak["growth"]
    extractor = convert.FeatureExtractor(convert.to_float32(model))
    with peak_memory() as peak:
        triples = ((split.images[part], features, split.labels[part]) for part, features, _ in extractor.batches(split))
        OODDetector.fit(triples, split.num_classes)
    result["export_bytes"] = peak["growth"]
    return result


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Yield a dict whose `growth` is the peak of the anonymous memory less its initial value, in bytes."""
    result = {"growth": 0}
    first, finished = anonymous_bytes(), threading.Event()

    def read() -> None:
        while not finished.wait(INTERVAL):
            result["growth"] = max(result["growth"], anonymous_bytes() - first)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield result
    finally:
        finished.set()
        thread.join()


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process, in bytes."""
    found = re.search(r"RssAnon:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
    if found is None:
        raise UserError(f"{STATUS} has no RssAnon: this benchmark needs Linux 4.5 or later")
    return 1024 * int(found[1])


if __name__ == "__main__":
    run_command(main)
