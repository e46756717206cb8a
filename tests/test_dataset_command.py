"""`fashion dataset`: params.yaml, images/ and the pipeline for another data set."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from fashion.data import about, dataset, idx, inspection
from fashion.errors import UserError
from fashion.params import check_params, load_params
from fashion.review.lock_diff import flat
from fashion.validation import parse_yaml, read_yaml
from tests.conftest import FASHION, ROOT, SMALL_NETWORKS, SMALL_TRAINING, Project, idx_params
from tests.drill import project as drill
from tests.test_folder import CLASSES, write_images


@pytest.fixture(scope="module")
def dvc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder .dvc of a project without Git."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    return folder / ".dvc"


@pytest.fixture
def root(dvc_folder: Path, tmp_path: Path) -> Path:
    """Return a project with nothing but params.yaml and data/about.md, without Git."""
    shutil.copytree(dvc_folder, tmp_path / "root" / ".dvc")
    (tmp_path / "root" / "data").mkdir()
    (tmp_path / "root" / about.PATH).write_text(about.skeleton("other").replace("TODO", "Done"))
    (tmp_path / "root" / "params.yaml").write_text(idx_params())
    return tmp_path / "root"


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return write_images(tmp_path / "colours", {"red": 20, "green": 30, "blue": 10})


def configure(root: Path, path: Path, **options: Any) -> list[str]:
    defaults = {"size": None, "grey": False, "flip": False, "name": None}
    return list(inspection.configure(root, path, **{**defaults, **options}))


def test_folder(root: Path, colours: Path) -> None:
    lines = configure(root, colours)
    assert lines[:4] == [
        "60 images in 3 classes: no `test` folder; 13 become the test set",
        "  blue: 10",
        "  green: 30",
        "  red: 20",
    ]
    assert "60 in colour, 0 greyscale" in lines
    assert "0 identical to another file" in lines
    params = load_params(root / "params.yaml")
    assert params.dataset.model_dump() == {
        "name": "colours",
        "format": "folder",
        "height": 32,
        "width": 32,
        "channels": 3,
        "classes": CLASSES,
    }
    assert params.fetch.model_dump() == {"folder": "images", "unreadable": 0, "test_fraction": 0.2, "seed": 2017}
    assert params.validation.images == 5
    assert params.export.representative_images == 42
    assert params.training.augmentation.flip is False
    assert params.training.test_time_augmentation.mirror is False
    assert params.review["min_accuracy"] == {}
    assert (root / "images.dvc").exists()
    assert sorted(path.name for path in (root / "images").iterdir()) == list(CLASSES)
    assert 'params.yaml: dataset.name: "Lines" -> "colours"' in lines
    assert "params.yaml: training.augmentation.flip: true -> false" in lines
    assert "params.yaml: fetch.sources: removed" in lines
    assert "Run: make deps && make" in lines
    assert not any("git rm" in line for line in lines)


def test_reader_that_goes_away(root: Path, colours: Path) -> None:
    """If `fashion dataset ... | less` is quit early, the images, params.yaml and about.md have all changed, or none."""
    paths = [root / "params.yaml", root / "data" / "about.md"]
    before = [path.read_text() for path in paths]
    lines = inspection.configure(root, colours, size=None, grey=False, flip=False, name="Colours")
    changed = set()
    for _ in lines:
        now = [path.read_text() != old for path, old in zip(paths, before, strict=True)]
        changed.add(((root / "images").exists(), *now))
    assert changed == {(False, False, False), (True, True, True)}


def test_names_the_old_results(root: Path, colours: Path) -> None:
    (root / "tests").mkdir()
    (root / "tests" / "test_results.py").touch()
    command = f"git rm -rq {inspection.RESULTS}"
    assert f"Delete the results for Fashion-MNIST: {command}" in configure(root, colours)
    assert command in (ROOT / "docs" / "extend.md").read_text()


def test_names_every_change(root: Path, colours: Path) -> None:
    before = flat(read_yaml(root / "params.yaml"))
    lines = configure(root, colours)
    after = flat(read_yaml(root / "params.yaml"))
    changed = [key for key in {*before, *after} if before.get(key) != after.get(key)]
    named = [line.removeprefix("params.yaml: ").partition(":")[0] for line in lines if line.startswith("params.yaml: ")]
    assert len(changed) > 10
    assert [key for key in changed if not any(f"{key}.".startswith(f"{name}.") for name in named)] == []


def test_keeps_comments(root: Path, colours: Path) -> None:
    before = (root / "params.yaml").read_text()
    configure(root, colours)
    after = (root / "params.yaml").read_text()
    start, end = (text.index("\nvalidation:") for text in (before, after))
    old, new = before[start:].splitlines(), after[end:].splitlines()
    assert len([line for line in new if line not in old]) <= 9  # the values that `test_folder` lists
    assert after.startswith(before.partition("\n\n")[0])
    assert "\n\nfetch:\n" in after
    assert "\n\nvalidation:\n" in after


def test_again(root: Path, colours: Path) -> None:
    """On images/ itself, after a change."""
    configure(root, colours)
    text = (root / "params.yaml").read_text()
    assert not any("params.yaml: " in line for line in configure(root, root / "images"))
    assert (root / "params.yaml").read_text() == text
    text = text.replace("test_fraction: 0.2", "test_fraction: 0.3")
    text = text.replace("seed: 2017 # of the order", "seed: 7 # of the order")
    text = text.replace("preprocessing: resize", "preprocessing: fashion-mnist")
    text = re.sub("min_accuracy: .*", "min_accuracy: {cnn: 0.5}", text)
    (root / "params.yaml").write_text(text)
    write_images(root / "images" / "more", {"red": 5})
    (root / "images" / "more" / "red").rename(root / "images" / "pink")
    (root / "images" / "more").rmdir()
    lines = configure(root, root / "images", size=24, flip=True)
    params = load_params(root / "params.yaml")
    assert params.dataset.classes == ("blue", "green", "pink", "red")
    assert params.dataset.image_shape == (24, 24, 3)
    assert params.training.augmentation.flip is True
    assert params.training.test_time_augmentation.mirror is True
    assert "params.yaml: dataset.height: 32 -> 24" in lines
    assert (params.fetch.model_dump()["test_fraction"], params.fetch.model_dump()["seed"]) == (0.3, 7)
    assert params.export.preprocessing == "fashion-mnist"
    assert params.review["min_accuracy"] == {"cnn": 0.5}


def description(root: Path) -> str:
    return (root / about.PATH).read_text()


def test_about(root: Path, colours: Path) -> None:
    """data/about.md is replaced unless it describes this data set."""
    line = "data/about.md: replaced the description of other; fill in the lines marked TODO, for the model card"
    assert line in configure(root, colours)
    assert description(root) == about.skeleton("colours")
    assert about.read(root / about.PATH).header.name == "colours"
    filled_in = description(root).replace("TODO", "Done")
    (root / about.PATH).write_text(filled_in)
    assert "data/about.md: kept" in configure(root, root / "images")
    assert "data/about.md: kept; change `name` in its header to Colours" in configure(
        root, root / "images", name="Colours"
    )
    assert description(root) == filled_in


def test_about_missing(root: Path, colours: Path) -> None:
    (root / about.PATH).unlink()
    lines = configure(root, colours, name='a "b": #c')
    assert "data/about.md: written; fill in the lines marked TODO, for the model card" in lines
    assert about.load(root / about.PATH, 'a "b": #c').sections["Licence"].startswith("TODO")


def test_about_malformed(root: Path, colours: Path) -> None:
    (root / about.PATH).write_text("# No header")
    assert error_of(root, colours).startswith(f"{root}/data/about.md: no header; expected YAML")
    assert not (root / "images").exists()
    assert description(root) == "# No header"


def test_unreadable_and_duplicates(root: Path, colours: Path) -> None:
    (colours / "red" / "000.png").write_text("no image")
    for copy in ("red/001.png", "green/001.png"):
        (colours / copy).write_bytes((colours / "red" / "002.png").read_bytes())
    lines = configure(root, colours)
    assert "2 identical to another file" in lines
    assert any(line.startswith("  in more than one class: 1, such as ") for line in lines)
    assert f"  {colours}/red/000.png: not a PNG, JPEG or WebP image" in lines
    assert "params.yaml: fetch.unreadable: 1" in lines


@pytest.mark.parametrize(("part", "expected"), [("", 3), ("train", 2)])
def test_no_readable_file(root: Path, tmp_path: Path, part: str, expected: int) -> None:
    photos = tmp_path / "photos"
    for path in [photos / part / name / f"{number}.png" for name in "ab" for number in range(3)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no image")
    if part:
        shutil.copytree(photos / part, photos / "test")
    lines = error_of(root, photos).splitlines()
    folder = photos / part / "a"
    assert lines[0].startswith(f"{folder}: 0 readable images, expected at least {expected} for training")
    assert f"{folder}/0.png: not a PNG, JPEG or WebP image" in lines


def test_large_file(root: Path, colours: Path) -> None:
    os.truncate(colours / "red" / "000.png", 2**36)
    message = "/red/000.png: more than 33,554,432 bytes, the limit for an image; remove the file"
    assert error_of(root, colours).endswith(message)
    assert [path for path in root.iterdir() if "images" in path.name] == []


def test_small_greyscale_images(root: Path, tmp_path: Path) -> None:
    for part, count in (("train", 12), ("test", 4)):
        for name in ("0", "1"):
            (tmp_path / "digits" / part / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB" if index % 2 else "L", (9, 12), "white" if name == "1" else "black")
                image.save(tmp_path / "digits" / part / name / f"{index}.png")
    lines = configure(root, tmp_path / "digits")
    params = load_params(root / "params.yaml")
    assert params.dataset.image_shape == (12, 9, 1)
    assert params.models["cnn"]["filters"] == [32, 64, 128]
    assert lines[:3] == ["32 images in 2 classes: 24 for training, 8 for the test set", "  0: 12 + 4", "  1: 12 + 4"]
    assert "all 9 x 12 pixels" in lines
    assert "0 in colour, 32 greyscale" in lines
    assert "16 almost black; if these are 16-bit images that use fewer bits, scale them" in lines
    assert any(line.startswith("  in the training and the test images: 4, such as ") for line in lines)


def test_few_blocks(tmp_path: Path, root: Path) -> None:
    write_idx(tmp_path / "tiny", (4, 5))
    lines = configure(root, tmp_path / "tiny")
    assert "params.yaml: models.cnn.filters: [32, 64, 128] -> [32, 64]" in lines


def test_grey(root: Path, colours: Path) -> None:
    configure(root, colours, grey=True)
    assert load_params(root / "params.yaml").dataset.image_shape == (32, 32, 1)


def write_idx(folder: Path, shape: tuple[int, int] = (10, 12), classes: int = 3) -> None:
    folder.mkdir()
    for part, count in (("train", 60), ("t10k", 15)):
        images = np.random.default_rng(count).integers(0, 256, (count, *shape)).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx.encode(images)))
        labels = (np.arange(count) % classes).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx.encode(labels))


def test_idx(root: Path, tmp_path: Path) -> None:
    write_idx(tmp_path / "white noise")
    lines = configure(root, tmp_path / "white noise", name="Noise")
    params = load_params(root / "params.yaml")
    assert params.dataset.image_shape == (10, 12, 1)
    assert (params.dataset.name, params.dataset.classes) == ("Noise", ("0", "1", "2"))
    assert lines[0] == "60 training and 15 test images in 3 classes"
    assert f"Run: make deps && FASHION_MNIST_DIR='{tmp_path / 'white noise'}' make" in lines
    assert not (root / "images.dvc").exists()


def test_classes_of_idx(root: Path, tmp_path: Path) -> None:
    """Class names are kept for the same data set only."""
    path = root / "params.yaml"
    write_idx(tmp_path / "noise")
    configure(root, tmp_path / "noise")
    path.write_text(path.read_text().replace("- '0'", "- zero"))
    configure(root, tmp_path / "noise")
    assert load_params(path).dataset.classes == ("zero", "1", "2")
    write_idx(tmp_path / "other", (9, 9))
    configure(root, tmp_path / "other")
    assert load_params(path).dataset.classes == ("0", "1", "2")


def test_fetch_idx(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lengths and hashes that it wrote are those of the files."""
    write_idx(tmp_path / "noise")
    configure(root, tmp_path / "noise")
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "noise"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    subprocess.run([sys.executable, "-m", "stages.fetch", "raw"], cwd=root, check=True)
    assert len(list((root / "raw").iterdir())) == 4


def error_of(root: Path, path: Path, **options: Any) -> str:
    before = (root / "params.yaml").read_bytes()
    with pytest.raises(UserError) as error:
        configure(root, path, **options)
    assert (root / "params.yaml").read_bytes() == before
    return str(error.value)


def test_images_exists(root: Path, colours: Path) -> None:
    (root / "images").mkdir()
    assert error_of(root, colours).startswith(f"{root / 'images'} exists; to use {colours} in its place, run")


def test_dvc_fails(root: Path, colours: Path) -> None:
    shutil.rmtree(root / ".dvc")
    assert error_of(root, colours).startswith("`dvc add images` failed: ERROR: you are not inside of a DVC repository")
    assert not (root / "images").exists()
    assert sorted(path.name for path in root.iterdir() if not path.name.startswith(".")) == ["data", "params.yaml"]
    assert "Done" in description(root)


def test_interrupted_dvc(root: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        configure(root, colours)
    assert not (root / "images").exists()


@pytest.mark.parametrize("name", ["caf\udce9", "a\x7fb"])
def test_unprintable_name(root: Path, colours: Path, name: str) -> None:
    assert error_of(root, colours, name=name).endswith(": expected a printable name; use --name")


@pytest.mark.parametrize("size", [0, 7, 1025, -1])
def test_size(root: Path, colours: Path, size: int) -> None:
    assert error_of(root, colours, size=size) == f"--size: found {size}, expected 8 to 1024 pixels"


def test_options_for_idx(root: Path, tmp_path: Path) -> None:
    write_idx(tmp_path / "noise")
    assert error_of(root, tmp_path / "noise", grey=True).startswith("--size and --grey are for folders of image files")


def test_idx_mistakes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = tmp_path / "noise"
    write_idx(noise)
    labels = noise / "t10k-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(idx.encode(np.zeros(15, np.uint8)))
    assert error_of(root, noise) == f"{noise}: no test image has the label 1; expected each up to 2"
    labels.write_bytes(idx.encode(np.arange(14, dtype=np.uint8) % 3))
    assert error_of(root, noise) == f"{noise}: 15 test images, but 14 labels"
    labels.write_bytes(content[:9])
    assert error_of(root, noise).startswith(f"{labels}: 9 bytes long, expected 23")
    labels.write_bytes(b"\x1f\x8b" + content)
    assert error_of(root, noise).startswith(f"{labels}: corrupt (")
    monkeypatch.setattr(inspection, "MAX_IDX_BYTES", 10_000)
    labels.write_bytes(gzip.compress(bytes(10_001)))
    assert error_of(root, noise) == f"{labels}: more than 10,000 bytes uncompressed, the limit"
    labels.unlink()
    assert error_of(root, noise).startswith(f"{noise}: none for test_labels, expected one file with train or test")


def test_command_line() -> None:
    done = subprocess.run([*FASHION, "dataset", "nowhere"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "error: nowhere: no such folder; expected images in CLASS/, or in train/CLASS/ and test/CLASS/\n"
    )


def test_format_and_fetch_differ() -> None:
    values = parse_yaml(idx_params(), "params.yaml")
    values["dataset"]["format"] = "folder"
    with pytest.raises(UserError) as error:
        check_params(values, "params.yaml")
    assert str(error.value) == (
        "params.yaml: fetch: found the keys sources, timeout, retries, deadline, files; dataset.format: folder expects "
        "folder, unreadable, test_fraction, seed; `fashion dataset PATH` writes both sections"
    )
    values["fetch"] = {"folder": "images", "unreadable": 0, "test_fraction": 1.0, "sed": 1}
    with pytest.raises(UserError) as error:
        check_params(values, "params.yaml")
    assert str(error.value).splitlines() == [
        "params.yaml: fetch.test_fraction: should be less than 1, found 1.0",
        "params.yaml: fetch.seed: missing",
        "params.yaml: fetch.sed: unknown key",
    ]


def test_colour_idx() -> None:
    values = parse_yaml(idx_params(), "params.yaml")
    values["dataset"]["channels"] = 3
    with pytest.raises(UserError, match="channels: found 3, expected 1: IDX images are greyscale"):
        check_params(values, "params.yaml")


def test_other_image_size(copied: Project) -> None:
    copied.edit_params(lambda params: params["dataset"].update(height=21))
    done = copied.run(sys.executable, "-m", "stages.preprocess", "data/raw", "a", "b", "c", "d", check=False)
    assert done.stderr == (
        "error: the training images have height 20, width 24 and channels 1, expected 21, 24 and 1: correct dataset in "
        "params.yaml\n"
    )


def test_make_deps(copied: Project, colours: Path) -> None:
    copied.run(*FASHION, "dataset", str(colours))
    output = copied.run(sys.executable, "-m", "fashion.dvc_deps").stdout
    added = ["images", *(f"fashion/data/{name}.py" for name in ("dataset", "folder", "images", "resizing"))]
    assert output.splitlines() == [
        "dvc.yaml: fetch: params: added dataset",
        *(f"dvc.yaml: fetch: deps: added {path}" for path in added),
        "dvc.yaml: fetch: deps: removed fashion/data/sources.py",
    ]
    fetch = YAML(typ="safe").load(copied.folder / "dvc.yaml")["stages"]["fetch"]
    assert fetch["deps"][0] == "images"
    assert fetch["params"] == ["dataset", "fetch"]
    assert copied.run("git", "status", "--porcelain").stdout.split() == [
        *("M", ".gitignore", "M", "data/about.md", "M", "dvc.yaml", "M", "params.yaml", "??", "images.dvc")
    ]


@pytest.mark.slow
def test_pipeline(copied: Project, colours: Path) -> None:
    copied.run(*FASHION, "dataset", str(colours), "--size", "16")

    def shorten(params: Any) -> None:
        params["training"] |= {**SMALL_TRAINING, "batch_size": 10}
        for model in params["models"].values():
            model |= {key: value for key, value in SMALL_NETWORKS.items() if key in model}
            model["batch_size"] = 10

    copied.edit_params(shorten)
    drill.shorten(copied, last=None)
    copied.run("dvc", "repro")
    assert dataset.load(copied.folder / "data" / "test").images.shape == (13, 16, 16, 3)
    for page in ("reports/index.html", "reports/MODEL_CARD.md"):
        text = (copied.folder / page).read_text()
        assert all(name in text for name in ("colours", "Balanced accuracy", *CLASSES))
    image = next((copied.folder / "images" / "red").iterdir())
    prediction = json.loads(copied.run(*FASHION, "predict", "--json", str(image)).stdout)
    assert set(prediction["probabilities"]) == set(CLASSES)
    assert "up to date" in copied.run("dvc", "repro").stdout
    write_images(copied.folder / "images" / "new", {"red": 1}, seed=5)
    (copied.folder / "images" / "new" / "red" / "000.png").rename(copied.folder / "images" / "red" / "new.png")
    (copied.folder / "images" / "new" / "red").rmdir()
    (copied.folder / "images" / "new").rmdir()
    assert "fetch" in copied.run("dvc", "status").stdout
