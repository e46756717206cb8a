"""A small data set with other class names and image sizes, and a clone of this project that uses it.

The tests run with the environment variables in `KEPT` only, an empty home folder and default signal handlers.
"""

import atexit
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from ruamel.yaml import YAML

from fashion.data import about, idx
from fashion.environment import exclusive
from tests.flowers import Flowers

# Names of environment variables, or their prefixes
KEPT = ("CUDA_", "DYLD_", "LD_", "LOGNAME", "PATH", "SCREENSHOTS", "PYTEST_", "TMPDIR", "USER")

for variable in [variable for variable in os.environ if not variable.startswith(KEPT)]:
    del os.environ[variable]
home = tempfile.mkdtemp(prefix="fashion-home-")
atexit.register(shutil.rmtree, home, ignore_errors=True)
Path(home, ".gitconfig").write_text("[user]\nname = test\nemail = test@localhost\n", encoding="utf-8")
os.environ |= {"HOME": home, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "DVC_NO_ANALYTICS": "1"}
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may start with it ignored
signal.signal(signal.SIGTERM, signal.SIG_DFL)

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]
FASHION = [sys.executable, "-m", "fashion.cli"]  # the `fashion` command, of the code in the current folder
CLASSES = [  # everything that a class name may contain
    "upright | <b>$x$</b>",
    "水平 `level` *_[1](2)",
    'пологий "slope" & {{ x }}, ${y}',
]
SHAPE = (20, 24)
MODELS = tuple(YAML(typ="safe").load(ROOT / "params.yaml")["models"])
SMALL_TRAINING = {"epochs": 2, "batch_size": 50}
SMALL_NETWORKS = {"hidden_units": [16], "filters": [4, 8]}
FILES = {f"{part}_{kind}": f"lines-{part}.{kind}" for part in ("train", "test") for kind in ("images", "labels")}


def draw_lines(count: int, seed: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images of a vertical, horizontal or diagonal line, and their labels.

    The images are uint8 (count, *SHAPE, channels), each in a random colour if there are several channels.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % len(CLASSES)
    images = generator.integers(0, 80, (count, *SHAPE)).astype(np.uint8)
    for image, label, at in zip(images, labels, generator.integers(3, 17, count), strict=True):
        match label:
            case 0:
                image[:, at : at + 2] = 220
            case 1:
                image[at : at + 2, :] = 220
            case _:
                image[np.arange(20), (np.arange(20) + at) % 24] = 220
    colours = generator.uniform(0.4, 1, (count, 1, 1, channels)) if channels > 1 else 1
    return (images[..., None] * colours).astype(np.uint8), labels


IDX_SECTIONS = f"""\
dataset:
  name: Lines
  format: idx
  height: {SHAPE[0]}
  width: {SHAPE[1]}
  channels: 1
  classes:
    - upright
    - level
    - rising
    - falling

fetch:
  sources:
    - env:FASHION_MNIST_DIR
  timeout: 20
  retries: 1
  deadline: 1800
  files:
"""


def idx_params() -> str:
    """Return the text of params.yaml for a data set of IDX files, whatever the project's own data set is."""
    files = "".join(
        f"    {key}:\n      name: {name}\n      length: 1\n      sha256: {'a' * 64}\n" for key, name in FILES.items()
    )
    text = (ROOT / "params.yaml").read_text()
    text = re.sub(r"(?ms)^dataset:.*?(?=^validation:)", f"{IDX_SECTIONS}{files}\n", text)
    values = {
        "flip": "true",
        "mirror": "true",
        "filters": "[32, 64, 128]",
        "preprocessing": "fashion-mnist",
        "representative_images": "500",
    }
    for key, value in values.items():
        text = re.sub(rf"(?m)^( +{key}:) [^#\n]*?(?= #|$)", rf"\1 {value}", text)
    return text


@contextmanager
def served_demo(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run `fashion demo` in a project and yield its address; it must stop cleanly at the end."""
    with subprocess.Popen(
        [*FASHION, "demo", "--port", "0"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            assert line, server.communicate()[1]
            yield line.split()[0]
            server.send_signal(signal.SIGINT)
            output = server.communicate(timeout=30)
            assert output == ("", ""), output
            assert server.returncode == 0
        finally:
            server.kill()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that build the shared project first, and the others that need it last."""
    shared = {item.path.name for item in items if "project" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: 0 if item.path.name == "test_pipeline.py" else 1 + (item.path.name in shared))


@pytest.fixture(autouse=True)
def float32() -> Iterator[None]:
    """Reset Keras' dtype policy after each test."""
    yield
    if keras := sys.modules.get("keras"):
        keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def original_flowers(tmp_path_factory: pytest.TempPathFactory) -> Flowers:
    """Return another project; copy it before changing it."""
    return Flowers.create(tmp_path_factory.mktemp("flowers"))


def write_raw(folder: Path) -> Path:
    """Write the four IDX files of a small data set to a folder and return it."""
    for part, count, seed in (("train", 360, 1), ("test", 90, 2)):
        images, labels = draw_lines(count, seed)
        (folder / FILES[f"{part}_images"]).write_bytes(idx.encode(images[..., 0]))
        (folder / FILES[f"{part}_labels"]).write_bytes(idx.encode(labels))
    return folder


@pytest.fixture(scope="session")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("by-hand"))


def small_params(raw_folder: Path) -> dict[str, Any]:
    """Return the project's params with the small data set and short trainings."""
    params: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
    height, width = SHAPE
    shape = {"height": height, "width": width, "channels": 1}
    params["dataset"] = {"name": "Lines", "format": "idx", **shape, "classes": CLASSES}
    files = {
        key: {"name": name, "length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for key, name in FILES.items()
        for content in [(raw_folder / name).read_bytes()]
    }
    params["fetch"] = {
        "sources": ["env:FASHION_MNIST_DIR"],
        "timeout": 20,
        "retries": 1,
        "deadline": 1800,
        "files": files,
    }
    params["validation"]["images"] = 60
    params["export"] |= {"preprocessing": "fashion-mnist", "representative_images": 100}
    params["training"] |= SMALL_TRAINING
    params["training"]["hard_examples"]["refresh_every"] = 1  # the second epoch uses the hardest images
    for name, model in params["models"].items():
        own = {key: SMALL_NETWORKS.get(key, value) for key, value in model.items() if key not in SMALL_TRAINING}
        params["models"][name] = own
    return params


@dataclass(frozen=True)
class Project:
    """A clone of this project with the small data set."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone; with `check`, fail the test with its output if it fails."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def commit(self, message: str) -> None:
        """Commit all files that Git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "-qm", message)

    def edit_params(self, edit: Callable[[Any], None]) -> None:
        """Change params.yaml in place."""
        path = self.folder / "params.yaml"
        params = YAML(typ="safe").load(path)
        edit(params)
        YAML().dump(params, path)


def clone(folder: Path, raw_folder: Path) -> Project:
    """Copy the working tree, without ignored files, and switch it to the small data set."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists() and not name.startswith("reports/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    project = Project(folder, {**os.environ, "FASHION_MNIST_DIR": str(raw_folder)})
    YAML().dump(params := small_params(raw_folder), folder / "params.yaml")
    (folder / about.PATH).write_text(about.skeleton(params["dataset"]["name"]))
    project.run("git", "init", "-q")
    if (folder / "images.dvc").exists():  # of a project with a folder of images
        project.run("dvc", "remove", "images.dvc")  # also from .gitignore
        project.run(sys.executable, "-m", "fashion.dvc_deps")
    project.commit("a clone with the small data set")
    return project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, raw_folder: Path) -> Project:
    """Return a clone in which the pipeline has run, shared by all test processes; do not change it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if "PYTEST_XDIST_WORKER" not in os.environ else base.parent) / "project"
    with exclusive(folder.with_suffix(".lock"), "Another test process makes the project; waiting for it"):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            started = clone(new, raw_folder)
            started.run("dvc", "repro")
            started.commit("first run")
            new.rename(folder)
    return Project(folder, {**os.environ, "FASHION_MNIST_DIR": str(raw_folder)})


@pytest.fixture
def copied(project: Project, tmp_path: Path) -> Project:
    """Return a copy of the project that a test may change."""
    return Project(shutil.copytree(project.folder, tmp_path / "copy", symlinks=True), project.environment)
