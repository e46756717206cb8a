"""`fashion demo`, served in a process of its own from the models of a whole pipeline: answers, and what it refuses."""

import asyncio
import base64
import hashlib
import http.client
import io
import json
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from PIL import Image
from starlette.applications import Starlette

from fashion.data import dataset
from fashion.serving import app, preprocessing
from tests.conftest import CLASSES, FASHION, SHAPE, Project, served_demo

HOST = (b"host", demo.HOST.encode())


@pytest.fixture(scope="module")
def address(project: Project) -> Iterator[str]:
    """Return where the page is served, of the project with the small data set."""
    with served_demo(project.folder, project.environment) as address:
        yield address


@pytest.fixture(scope="module")
def picture(project: Project) -> bytes:
    """Return test image 0 as a PNG file."""
    image = dataset.load(project.folder / "data" / "test.npz").images[0]
    Image.fromarray(image).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def pixels(data: str) -> np.ndarray:
    head, _, content = data.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_a_picture_is_answered_by_every_model(project: Project, address: str, picture: bytes) -> None:
    (project.folder / "models" / "picture.png").write_bytes(picture)
    answer = requests.post(f"{address}/answer", data=picture, timeout=30).json()
    np.testing.assert_array_equal(pixels(answer["seen"]), np.asarray(Image.open(io.BytesIO(picture))))
    assert answer["actual"] is None
    assert answer["classes"] == CLASSES
    assert [model["name"] for model in answer["models"]] == ["cnn", "dnn"]
    for model in answer["models"]:
        done = project.run(*FASHION, "predict", "--json", "--model", model["name"], "models/picture.png")
        expected = json.loads(done.stdout)
        for name, probability in zip(CLASSES, model["probabilities"], strict=True):
            assert probability == pytest.approx(expected["probabilities"][name], abs=1e-5)
        assert model["familiar"] == expected["familiar"]
        assert len(model["nearest"]) == demo.NEAREST
        assert {similar["label"] for similar in model["nearest"]} <= set(CLASSES)
        assert pixels(model["nearest"][0]["image"]).shape == SHAPE


def test_a_test_image_comes_with_what_it_is(project: Project, address: str) -> None:
    answer = requests.get(f"{address}/test/4", timeout=30).json()
    test = dataset.load(project.folder / "data" / "test.npz")
    np.testing.assert_array_equal(pixels(answer["seen"]), test.images[4])
    assert answer["actual"] == CLASSES[test.labels[4]]
    thumbnail = requests.get(f"{address}/test/4.png", timeout=30).content
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(thumbnail))), test.images[4])


def test_a_training_image_is_most_like_itself(project: Project, address: str) -> None:
    image = dataset.load(project.folder / "data" / "train.npz").images[7]
    Image.fromarray(image).save(file := io.BytesIO(), "PNG")
    for model in requests.post(f"{address}/answer", data=file.getvalue(), timeout=30).json()["models"]:
        np.testing.assert_array_equal(pixels(model["nearest"][0]["image"]), image)


def test_clients_at_once_get_the_answers_that_they_would_get_alone(address: str) -> None:
    def ask(index: int) -> bytes:
        return requests.get(f"{address}/test/{index}", timeout=30).content

    alone = [ask(index) for index in range(30)]
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(ask, [*range(30)] * 3)) == alone * 3


def test_the_background_can_be_told(address: str, picture: bytes) -> None:
    seen = [
        requests.post(f"{address}/answer?background={background}", data=picture, timeout=30).json()["seen"]
        for background in ("dark", "light")
    ]
    np.testing.assert_array_equal(pixels(seen[0]), 255 - pixels(seen[1]))


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("POST", "/answer", 400, "not a picture, or in another format; PNG, JPEG and WebP are read"),
        ("POST", "/answer?background=red", 400, "background 'red'; light or dark is expected, or neither"),
        ("GET", "/test/90", 400, "no test image 90; they are numbered from 0 to 89"),
        ("GET", "/test/90.png", 400, "no test image 90; they are numbered from 0 to 89"),
        ("GET", f"/test/{'1' * 5000}", 400, f"no test image {'1' * 20}; they are numbered from 0 to 89"),
        ("GET", "/test/-1", 400, "no test image -1; they are numbered from 0 to 89"),
    ],
)
def test_bad_questions(address: str, method: str, path: str, status: int, says: str) -> None:
    response = requests.request(method, f"{address}{path}", data=b"no picture", timeout=30)
    assert (response.status_code, response.json()) == (status, {"error": says})


@pytest.fixture
def connection(address: str) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)) as connection:
        yield connection


def test_what_is_declared_too_large_is_refused_unread(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/answer")
    connection.putheader("Content-Length", str(preprocessing.MAX_BYTES + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read()) == {
        "error": "too large; at most 33,554,432 bytes are read: make it smaller",
    }


def test_what_turns_out_too_large_is_not_read_to_its_end(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/answer")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    sent = 0
    try:
        while sent < 1000:  # MiB
            connection.send(chunk)
            sent += 1
    except OSError:  # it hung up
        pass
    assert preprocessing.MAX_BYTES // 2**20 <= sent < 200


def test_a_client_may_go_away(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/answer")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"the first bytes")
    connection.close()


def test_it_answers_after_all_that(address: str, picture: bytes) -> None:
    assert requests.post(f"{address}/answer", data=picture, timeout=30).ok


def test_only_its_own_page_may_ask(address: str, picture: bytes) -> None:
    assert requests.get(address, headers={"Host": "elsewhere.example"}, timeout=30).status_code == 400
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        headers = {"Sec-Fetch-Site": site}
        assert requests.post(f"{address}/answer", picture, headers=headers, timeout=30).status_code == status


def test_who_has_gone_by_its_turn_is_not_answered() -> None:
    asked: list[bytes] = []
    go_on = threading.Event()

    class Slow(demo.Demo):
        def __init__(self) -> None:
            pass

        def answer(self, content: bytes, _background: object) -> dict[str, Any]:
            asked.append(content)
            assert go_on.wait(30)
            return {}

    async def ask(app: Starlette, content: bytes, *, gone: bool) -> None:
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": content}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            return {"type": "http.disconnect"} if gone else await asyncio.Future()

        async def send(_message: object) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": "/answer", "query_string": b"", "headers": [HOST]}
        await app(scope, receive, send)

    async def all_of_them() -> None:
        app = demo.application(Slow())
        tasks = [asyncio.create_task(ask(app, b"first", gone=False))]
        while not asked:
            await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(ask(app, content, gone=content == b"gone")) for content in (b"gone", b"last")]
        go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(all_of_them(), timeout=30))
    assert asked == [b"first", b"last"]


def test_the_page_calls_nobody(address: str) -> None:
    page = requests.get(address, timeout=30)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")
    for name in ("page.html", "page.css", "page.js"):
        assert requests.get(f"{address}/page/{name}", timeout=30).ok
        assert re.findall(r"(?:https?:)?//[a-z]", (demo.PAGE / name).read_text()) == [], name


def test_images_that_are_not_those_of_the_models(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.folder, tmp_path / "copy", ignore=shutil.ignore_patterns(".git", ".dvc"))
    train = tmp_path / "copy" / "data" / "train.npz"
    split = dataset.load(train)
    train.unlink()
    dataset.save(split.take(np.arange(len(split.labels))[::-1]), train)
    assert "data/train.npz was altered" in refused(project, tmp_path / "copy", "--port", "0")
    lock = tmp_path / "copy" / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())
    for out in stages["stages"]["preprocess"]["outs"]:
        if out["path"] == "data/train.npz":
            out["md5"] = hashlib.md5(train.read_bytes(), usedforsecurity=False).hexdigest()
    lock.write_text(yaml.safe_dump(stages))
    assert refused(project, tmp_path / "copy", "--port", "0") == (
        "error: models/cnn/features.npy was made from another data/train.npz; run `dvc repro`\n"
    )


def test_it_ends_when_it_is_told_to(project: Project) -> None:
    with subprocess.Popen(
        [*FASHION, "demo", "--port", "0"], cwd=project.folder, env=project.environment, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout
        server.stdout.readline()
        server.terminate()
        assert server.wait(timeout=30) == 128 + signal.SIGTERM


def refused(project: Project, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*FASHION, "demo", *arguments],
        cwd=folder,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_a_port_in_use(project: Project, address: str) -> None:
    port = address.rpartition(":")[2]
    assert refused(project, project.folder, "--port", port) == (
        f"error: port {port}: Address already in use; choose another with --port\n"
    )


def test_a_port_that_is_none(project: Project) -> None:
    assert refused(project, project.folder, "--port", "70000") == (
        "error: port 70000: there are ports 1 to 65535; choose another with --port\n"
    )


def test_no_project(project: Project, tmp_path: Path) -> None:
    assert refused(project, tmp_path, "--port", "0") == (
        "error: dvc.lock is missing; run this in the folder of the project, after `make`\n"
    )
