"""The networks take raw pixels, train to the same bytes, and come back from their archive."""

import io
import re
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.models import saving, cnn, dnn, training
from fashion.params import Augmentation, Cnn, Dnn, Selection
from tests.conftest import draw_lines

TRAINING: Any = {
    "augmentation": Augmentation(flip=True, shift=1, cutout=4),
    "label_smoothing": 0.1,
    "epochs": 4,
    "batch_size": 25,
    "optimizer": "muon",
    "learning_rate": 0.05,
    "adam_learning_rate": 0.01,
    "momentum": 0.6,
    "warmup": 0.25,
    "averaging": 0.0,
    "precision": "float32",
    "seed": 1,
}
ALL, HALF = Selection(share=1.0, hardest=0.0, every=1), Selection(share=0.5, hardest=0.5, every=1)
DNN = Dnn(hidden_units=(16, 8), dropout=0.1, batch_normalization="fused", selection=ALL, **TRAINING)
CNN = Cnn(
    whitening=True,
    filters=(4, 8),
    depth=2,
    residual=False,
    dropout=0.0,
    batch_normalization="fused",
    selection=HALF,
    **TRAINING,
)
TRAIN, VALIDATION = Split(*draw_lines(300, 1)), Split(*draw_lines(60, 2))

BOTH = pytest.mark.parametrize(("build", "params"), [(dnn.build, DNN), (cnn.build, CNN)], ids=["dnn", "cnn"])


@BOTH
def test_raw_pixels_in_probabilities_out(build: Any, params: Any) -> None:
    probabilities = build(params, TRAIN).predict(VALIDATION.images, verbose=0)
    assert probabilities.shape == (60, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_the_layers_are_those_of_the_params() -> None:
    dense, normal = (480 * 16, 16 * 8, 8 * 3 + 3), 3  # an offset, a moving mean and a moving variance
    assert dnn.build(DNN, TRAIN).count_params() == sum(dense) + normal * (16 + 8)
    first, blocks = 9 * 16 + 16, (9 * 16 * 4, 9 * 4 * 4, 9 * 4 * 8, 9 * 8 * 8)
    assert cnn.build(CNN, TRAIN).count_params() == first + sum(blocks) + normal * (4 + 4 + 8 + 8) + 8 * 3 + 3


def test_the_first_layer_standardises() -> None:
    pixels = dnn.build(DNN, TRAIN).layers[0](TRAIN.images).numpy()
    assert (pixels.mean(), pixels.std()) == pytest.approx((0, 1), abs=1e-4)


def test_images_of_one_colour() -> None:
    grey = Split(np.full_like(TRAIN.images, 7), TRAIN.labels)
    with pytest.raises(UserError, match="every pixel of the training images is 7"):
        dnn.build(DNN, grey)


def test_params_that_do_not_fit_the_images() -> None:
    """Whichever params a training uses, those of a study too, which are not in params.yaml."""
    params = CNN.model_copy(update={"filters": (4,) * 5})
    with pytest.raises(UserError, match="filters: images of 20 x 24 pixels are too small for 5 blocks"):
        training.train(cnn.build, params, TRAIN, VALIDATION)


def test_a_warm_up_of_nearly_all_steps() -> None:
    params = DNN.model_copy(update={"warmup": 0.99, "epochs": 1, "batch_size": 300})
    _, history = training.train(dnn.build, params, TRAIN, VALIDATION)
    assert np.isfinite(history.to_numpy()).all()


def test_a_training_that_diverges_ends() -> None:
    def broken(params: Dnn, train: Split) -> Any:
        model = dnn.build(params, train)
        model.get_layer("output").set_weights([np.full((8, 3), np.nan), np.zeros(3)])
        return model

    with pytest.raises(UserError, match=r"dnn: training diverged in epoch 1 .*; lower its learning_rate"):
        training.train(broken, DNN, TRAIN, VALIDATION)


@BOTH
def test_two_trainings_give_the_same_bytes_and_learn(build: Any, params: Any, tmp_path: Path) -> None:
    contents = []
    for name in ("one.keras", "two.keras"):
        model, history = training.train(build, params, TRAIN, VALIDATION)
        saving.save(model, tmp_path / name)
        contents.append(((tmp_path / name).read_bytes(), history.to_csv()))
    assert contents[0] == contents[1]
    assert history["val_accuracy"].iloc[-1] > 0.6  # three classes: guessing gives 0.33
    peak, half, low, end = history["learning_rate"]
    assert peak == pytest.approx(0.05)
    assert peak > half > low > end == pytest.approx(0, abs=1e-4)


def test_from_the_second_epoch_on_the_hardest_images_are_seen() -> None:
    selections = [Selection(share=0.5, hardest=hardest, every=1) for hardest in (0.0, 1.0)]
    losses = [
        training.train(dnn.build, DNN.model_copy(update={"selection": selection}), TRAIN, VALIDATION)[1]["loss"]
        for selection in selections
    ]
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] < losses[1][1]


def test_another_seed_gives_another_model() -> None:
    histories = [training.train(dnn.build, DNN.model_copy(update={"seed": s}), TRAIN, VALIDATION)[1] for s in (1, 2)]
    assert (histories[0]["loss"] != histories[1]["loss"]).all()


def test_a_line_per_epoch_where_there_is_no_terminal() -> None:
    with redirect_stdout(io.StringIO()) as said:
        training.train(dnn.build, DNN, TRAIN, VALIDATION)
    lines = said.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"dnn epoch {n}/4" for n in (1, 2, 3, 4)]
    assert all("val_accuracy 0." in line for line in lines)


class Terminal(io.StringIO):
    """Stands in for a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_with_throughput_and_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    training.train(dnn.build, DNN.model_copy(update={"epochs": 20}), TRAIN, VALIDATION)
    assert re.search(
        r"dnn: +\d+%\|.*\| [\d.]+k?/6\.00k \[\d\d:\d\d<\d\d:\d\d, +[\d.]+k? images/s\]", terminal.getvalue()
    )


def test_an_archive_holds_no_date_and_comes_back(tmp_path: Path) -> None:
    model = cnn.build(CNN, TRAIN)
    saving.save(model, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"date_saved" not in file.read("metadata.json")
    loaded = saving.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(VALIDATION.images, verbose=0), model.predict(VALIDATION.images, verbose=0)
    )


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.keras: not a Keras model .* run `dvc repro`"):
        saving.load(path)
