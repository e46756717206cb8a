"""`fashion demo`, with the models of a whole pipeline, served by a process of its own."""

import asyncio
import base64
import http.client
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import uvicorn
import yaml
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from starlette.applications import Starlette

from fashion.data import dataset, images
from fashion.dvc import Lock, folder_md5
from fashion.errors import UserError
from fashion.export import ood
from fashion.files import list_folder
from fashion.serving import app
from fashion.serving.classifier import Classifier, Predictions
from tests.conftest import CLASSES, FASHION, MODELS, SHAPE, Project, draw_lines, served_demo

HOST = (b"host", app.HOST.encode())


@pytest.fixture(scope="module")
def address(project: Project) -> Iterator[str]:
    """Return the URL of the demo of the small project."""
    with served_demo(project.folder, project.environment) as address:
        yield address


@pytest.fixture(scope="module")
def splits(project: Project) -> dict[str, dataset.Split]:
    return {name: dataset.load(project.folder / "data" / name) for name in ("train", "test")}


@pytest.fixture(scope="module")
def image(splits: dict[str, dataset.Split]) -> bytes:
    """Return test image 0 as a PNG file."""
    return png(splits["test"].images[0])


@contextmanager
def served(application: Starlette) -> Iterator[str]:
    """Serve an application in this process, and yield its address."""
    server = app.Server(uvicorn.Config(application, http=app.Connection, lifespan="off", log_config=None))
    with socket.create_server((app.HOST, 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://{app.HOST}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def png(pixels: np.ndarray) -> bytes:
    Image.fromarray(pixels[..., 0]).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def decode(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))[..., None]


def decode_url(url: str) -> np.ndarray:
    head, _, content = url.partition(",")
    assert head == "data:image/png;base64"
    return decode(base64.b64decode(content))


def test_image(project: Project, address: str, image: bytes) -> None:
    result = requests.post(f"{address}/predict", data=image, timeout=30).json()
    np.testing.assert_array_equal(decode_url(result["input"]), decode(image))
    assert result["actual"] is None
    assert result["classes"] == CLASSES
    assert [model["name"] for model in result["models"]] == list(MODELS)
    lock = Lock.read(project.folder)
    for model in result["models"]:
        expected = Classifier(project.folder, lock, model["name"])(decode(image)[None])
        np.testing.assert_allclose(model["probabilities"], expected.probabilities[0], atol=1e-5)
        assert model["in_distribution"] == expected.in_distribution[0]
        assert len(model["nearest"]) == app.NEAREST_IMAGES
        assert {nearest["label"] for nearest in model["nearest"]} <= set(CLASSES)
        assert decode_url(model["nearest"][0]["image"]).shape == (*SHAPE, 1)


def test_test_image(address: str, splits: dict[str, dataset.Split]) -> None:
    result = requests.get(f"{address}/test/4", timeout=30).json()
    np.testing.assert_array_equal(decode_url(result["input"]), splits["test"].images[4])
    assert result["actual"] == CLASSES[splits["test"].labels[4]]
    thumbnail = requests.get(f"{address}/test/4.png", timeout=30).content
    np.testing.assert_array_equal(decode(thumbnail), splits["test"].images[4])


def test_training_image_is_its_own_neighbour(address: str, splits: dict[str, dataset.Split]) -> None:
    pixels = splits["train"].images[7]
    for model in requests.post(f"{address}/predict", data=png(pixels), timeout=30).json()["models"]:
        np.testing.assert_array_equal(decode_url(model["nearest"][0]["image"]), pixels)


def test_other_reference_images(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models were exported by code that chose others."""
    monkeypatch.setattr(ood, "REFERENCE_IMAGES", 2)
    with pytest.raises(UserError, match=r"features.npy describes \d+ images instead of 2; run `dvc repro`"):
        app.Demo(project.folder)


def test_nearest_neighbours() -> None:
    generator = np.random.default_rng(1)
    train = generator.normal(size=(200, 7)).astype(np.float16)
    test = generator.normal(size=(20, 7)).astype(np.float32)
    expected = NearestNeighbors(n_neighbors=5).fit(train.astype(np.float64)).kneighbors(test, return_distance=False)
    search = app.NearestNeighbours(train)
    assert [search(features, 5).tolist() for features in test] == expected.tolist()


class ResizeDemo(app.Demo):
    """A demo of a stub model, with the preprocessing method resize."""

    def __init__(self, channels: int) -> None:
        self.classes, self.image_shape, self.preprocessing = CLASSES, (*SHAPE, channels), "resize"
        self.train, self.test = (dataset.Split(*draw_lines(count, count, channels)) for count in (60, 30))
        self._models: dict[str, Any] = {"stub": stub_model}
        self.reference = self.train
        self._neighbours = {"stub": app.NearestNeighbours(stub_model(self.train.images).features)}


def stub_model(images: np.ndarray) -> Predictions:
    """Stand in for a model: the mean colour is the features."""
    features = images.mean(axis=(1, 2)).astype(np.float32)
    return Predictions(np.full((len(images), 3), 1 / 3, np.float32), features, np.ones(len(images), bool))


@pytest.fixture(scope="module")
def colour_address() -> Iterator[str]:
    """Return the URL of the demo of the stub model."""
    with served(app.application(ResizeDemo(channels=3))) as address:
        yield address


def test_colour(colour_address: str) -> None:
    pixels = draw_lines(1, 1, channels=3)[0][0]
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    result = requests.post(f"{colour_address}/predict", data=file.getvalue(), timeout=30).json()
    np.testing.assert_array_equal(decode_url(result["input"])[..., 0], pixels)
    assert decode_url(result["models"][0]["nearest"][0]["image"]).shape[:3] == (*SHAPE, 3)
    response = requests.post(f"{colour_address}/predict?background=dark", data=file.getvalue(), timeout=30)
    error = "the model resizes images with any background; do not set the background"
    assert (response.status_code, response.json()) == (400, {"error": error})


def test_all_are_neighbours() -> None:
    assert app.NearestNeighbours(np.array([[1.0], [9.0], [5.0]]))(np.array([6.0]), 3).tolist() == [2, 1, 0]


def test_concurrent_requests(address: str) -> None:
    def predict(index: int) -> bytes:
        return requests.get(f"{address}/test/{index}", timeout=30).content

    alone = [predict(index) for index in range(30)]
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(predict, [*range(30)] * 3)) == alone * 3


def test_background(address: str, image: bytes) -> None:
    dark, light = (
        requests.post(f"{address}/predict?background={background}", data=image, timeout=30).json()["input"]
        for background in ("dark", "light")
    )
    np.testing.assert_array_equal(decode_url(dark), 255 - decode_url(light))


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/predict", 400, "not a PNG, JPEG or WebP image"),
        ("POST", "/predict?background=red", 400, "unknown background 'red'; expected light or dark"),
        ("GET", "/test/90", 400, "no test image 90; the indices are 0 to 89"),
        ("GET", "/test/90.png", 400, "no test image 90; the indices are 0 to 89"),
        ("GET", f"/test/{'1' * 5000}", 400, f"no test image {'1' * 20}; the indices are 0 to 89"),
        ("GET", "/test/-1", 400, "no test image -1; the indices are 0 to 89"),
    ],
)
def test_invalid_requests(address: str, method: str, path: str, status: int, message: str) -> None:
    response = requests.request(method, f"{address}{path}", data=b"no image", timeout=30)
    assert (response.status_code, response.json()) == (status, {"error": message})


@pytest.fixture
def connection(address: str) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)) as connection:
        yield connection


def test_content_length_too_large(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(images.MAX_BYTES + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    message = "file too large; the limit is 33,554,432 bytes: use a smaller file"
    assert json.loads(response.read()) == {"error": message}


def test_stream_too_large(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/predict")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    sent = 0
    try:
        while sent < 1000:  # MiB
            connection.send(chunk)
            sent += 1
    except OSError:  # the server closed the connection
        pass
    assert images.MAX_BYTES // 2**20 <= sent < 200


def test_disconnect_during_upload(address: str, image: bytes, connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"the first bytes")
    connection.close()
    assert requests.post(f"{address}/predict", data=image, timeout=30).ok


def test_other_hosts_and_sites(address: str, image: bytes) -> None:
    assert requests.get(address, headers={"Host": "elsewhere.example"}, timeout=30).status_code == 400
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        response = requests.post(f"{address}/predict", image, headers={"Sec-Fetch-Site": site}, timeout=30)
        assert response.status_code == status
        assert status == 200 or response.json() == {"error": "cross-site request refused"}


def test_disconnect_while_queued() -> None:
    predicted: list[bytes] = []
    finish = threading.Event()

    class SlowDemo(app.Demo):
        def __init__(self) -> None:
            pass

        def predict(self, content: bytes, _background: object) -> dict[str, Any]:
            predicted.append(content)
            assert finish.wait(30)
            return {}

    async def post(application: Starlette, content: bytes) -> None:
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": content}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            return {"type": "http.disconnect"} if content == b"disconnected" else await asyncio.Future()

        async def send(_message: object) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": [HOST]}
        await application(scope, receive, send)

    async def post_all() -> None:
        application = app.application(SlowDemo())
        tasks = [asyncio.create_task(post(application, b"first"))]
        while not predicted:
            await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(post(application, content)) for content in (b"disconnected", b"last")]
        finish.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(post_all(), timeout=30))
    assert predicted == [b"first", b"last"]


def test_no_external_requests(address: str) -> None:
    page = requests.get(address, timeout=30)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert 'accept="image/png,image/jpeg,image/webp"' in page.text
    for name in ("page.html", "page.css", "page.js"):
        assert requests.get(f"{address}/page/{name}", timeout=30).ok
        assert re.findall(r"(?:https?:)?//[a-z]", (app.PAGE / name).read_text()) == [], name


def test_altered_images(project: Project, tmp_path: Path) -> None:
    for folder in ("data", "models"):
        shutil.copytree(project.folder / folder, tmp_path / folder)
    for name in ("dvc.lock", "params.yaml"):
        shutil.copy(project.folder / name, tmp_path)
    train, lock = tmp_path / "data" / "train", tmp_path / "dvc.lock"
    split = dataset.load(train)
    dataset.save(split, train, np.arange(len(split.labels))[::-1])
    with pytest.raises(UserError, match=r"data/train was altered"):
        app.Demo(tmp_path)
    stages = yaml.safe_load(lock.read_text())
    for output in stages["stages"]["preprocess"]["outs"]:
        if output["path"] == "data/train":
            output["md5"] = folder_md5(list_folder(train))
    lock.write_text(yaml.safe_dump(stages))
    with pytest.raises(UserError, match=r"features\.npy was made from another version of data/train"):
        app.Demo(tmp_path)


def connect(address: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


HEADERS = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UNFINISHED = {
    "connection": b"",
    "headers": HEADERS,
    "body": HEADERS + b"Content-Length: 9\r\n\r\n12345678",
    "chunked body": HEADERS + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_unfinished_request(name: str, colour_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "REQUEST_SECONDS", 1)
    with connect(colour_address) as client:
        client.sendall(UNFINISHED[name])
        assert client.recv(1) == b""  # closed


def test_queued_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "REQUEST_SECONDS", 0.5)

    class SlowDemo(ResizeDemo):
        def predict_test_image(self, index: int) -> dict[str, Any]:
            time.sleep(1)
            return super().predict_test_image(index)

    with served(app.application(SlowDemo(channels=3))) as address, ThreadPoolExecutor(3) as clients:
        assert (
            list(clients.map(lambda _: requests.get(f"{address}/test/1", timeout=30).status_code, range(3)))
            == [200] * 3
        )


def test_unread_responses(colour_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "REQUEST_SECONDS", 1)
    with connect(colour_address) as client:
        client.sendall(b"GET /page/page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1200)  # 10 MB of responses
        for _ in range(150):
            try:
                client.send(b"x")
            except (ConnectionResetError, BrokenPipeError):
                return
            time.sleep(0.1)
    pytest.fail("the connection is still open")


def test_pipelined_requests(colour_address: str) -> None:
    request = b"GET /test/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(colour_address) as client:
        client.sendall(request * 3)
        assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    with connect(colour_address) as client, pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.sendall(request * 200_000)


def test_too_many_connections(colour_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_CONNECTIONS", 3)
    with ExitStack() as stack:
        clients = []
        for used in (True, True, True, False, False, False, True, True):
            clients.append(stack.enter_context(connect(colour_address)))
            if used:
                clients[-1].sendall(b"GET /test/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert clients[-1].recv(2**16).startswith(b"HTTP/1.1 200")
        for client in clients[:5]:
            while client.recv(2**16):
                pass  # until it is closed


def test_invalid_chunk_after_response(colour_address: str, caplog: pytest.LogCaptureFixture) -> None:
    with connect(colour_address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.recv(8) == b"HTTP/1.1"
        client.sendall(b"no chunk\r\n")
        while client.recv(65536):
            pass
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_invalid_chunk_with_request(colour_address: str, caplog: pytest.LogCaptureFixture) -> None:
    with connect(colour_address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n")
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 400")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_stop_during_requests(project: Project) -> None:
    with ExitStack() as stack, served_demo(project.folder, project.environment) as address:
        for request in (b"garbage\r\n\r\n", *UNFINISHED.values()):
            stack.enter_context(connect(address)).sendall(request)
        assert requests.get(f"{address}/test/1", timeout=30).ok


def test_connection_after_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    # uvicorn does not call it for such a connection
    monkeypatch.setattr(app.Connection, "shutdown", lambda _self: None)
    monkeypatch.setattr(app, "SHUTDOWN_SECONDS", 0.1)
    with ExitStack() as stack, served(app.application(ResizeDemo(channels=3))) as address:
        stack.enter_context(connect(address))
        assert requests.get(f"{address}/test/1", timeout=30).ok


def test_sigterm(project: Project) -> None:
    with subprocess.Popen(
        [*FASHION, "demo", "--port", "0"], cwd=project.folder, env=project.environment, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout
        server.stdout.readline()
        server.terminate()
        assert server.wait(timeout=30) == 128 + signal.SIGTERM


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server((app.HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"^port {port}: Address already in use; choose another with --port$"):
            app.serve(tmp_path, port)


def test_invalid_port(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^port 70000: expected 0 to 65535; choose another with --port$"):
        app.serve(tmp_path, 70_000)


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dvc\.lock is missing"):
        app.serve(tmp_path, 0)
