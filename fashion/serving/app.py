"""A web page to try the models on, served to browsers on this computer: `fashion demo`."""

import asyncio
import base64
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from jaxtyping import Float, Int64
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from uvicorn.protocols.http.h11_impl import H11Protocol

from fashion.data import FORMAT_LIST, FORMATS, dataset, images
from fashion.dvc import Lock, check_folder, read_output
from fashion.errors import UserError
from fashion.export import ood
from fashion.serving import preprocessing
from fashion.serving.classifier import Classifier, exported_models

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
NEAREST_IMAGES = 5  # shown for each model
BACKGROUNDS: dict[str, preprocessing.Background | None] = {"": None, "light": "light", "dark": "dark"}
MAX_CONNECTIONS = 100
REQUEST_SECONDS = 30  # to send a request or receive a response
SHUTDOWN_SECONDS = 2
MAX_PIPELINED_BYTES = 2**16  # received after the current request
SECURITY_HEADERS = {"Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:"}


class NearestNeighbours:
    """Search for the training images nearest to an image in the features of a model."""

    def __init__(self, features: Float[np.ndarray, "n features"]) -> None:
        """Take the features of the training images."""
        self._features = features.astype(np.float32)
        self._squared_norms = (self._features**2).sum(axis=1)

    def __call__(self, features: Float[np.ndarray, "features"], count: int) -> Int64[np.ndarray, "count"]:
        """Return the indices of the `count` images at the least Euclidean distance, nearest first."""
        distances = self._squared_norms - self._features @ (2 * features.astype(np.float32))  # squared, less a constant
        nearest = np.argpartition(distances, count - 1)[:count]
        return nearest[np.argsort(distances[nearest], kind="stable")]


class Demo:
    """All exported models of a project. Not thread-safe.

    Attributes:
        classes: the class names, in the order of the probabilities.
        image_shape: height, width and number of channels of the input images.
        preprocessing: the method that makes a model input from an image file.
        train: the training images.
        reference: those among them whose features the models were exported with.
        test: the test images.
    """

    def __init__(self, root: Path) -> None:
        """Load the models and the images of the project in the folder `root`.

        Raises:
            UserError: an output of the pipeline is missing or was altered, or there are no exported models.
        """
        lock = Lock.read(root)
        self._models = {name: Classifier(root, lock, name) for name in exported_models(root, lock)}
        for path in ("data/train", "data/test"):
            check_folder(root, lock, path)
        self.train, self.test = dataset.load(root / "data/train"), dataset.load(root / "data/test")
        self.reference = ood.reference(self.train)
        self._neighbours = {}
        for name in self._models:
            path = f"models/{name}/features.npy"
            lock.check_made_from(path, "data/train")
            features = np.load(io.BytesIO(read_output(root, lock, path)))
            if len(features) != (count := len(self.reference.images)):
                raise UserError(f"{path} describes {len(features)} images instead of {count}; run `dvc repro`")
            self._neighbours[name] = NearestNeighbours(features)
        first = next(iter(self._models.values()))
        self.classes, self.image_shape, self.preprocessing = first.classes, first.image_shape, first.preprocessing

    def predict(self, content: bytes, background: preprocessing.Background | None) -> dict[str, Any]:
        """Return the predictions for an image file, as a JSON object.

        Raises:
            UserError: as for `preprocessing.preprocess`.
        """
        pixels = preprocessing.preprocess(content, self.image_shape, self.preprocessing, background)
        return self._predict(pixels, None)

    def predict_test_image(self, index: int) -> dict[str, Any]:
        """Return the predictions for a test image and its actual class, as a JSON object."""
        return self._predict(self.test.images[index], self.classes[self.test.labels[index]])

    def _predict(self, pixels: dataset.Image, actual: str | None) -> dict[str, Any]:
        models = []
        for name, model in self._models.items():
            predictions = model(pixels[None])
            nearest = self._neighbours[name](predictions.features[0], min(NEAREST_IMAGES, len(self.reference.images)))
            models.append(
                {
                    "name": name,
                    "probabilities": predictions.probabilities[0].tolist(),
                    "in_distribution": bool(predictions.in_distribution[0]),
                    "nearest": [
                        {"image": _data_url(self.reference.images[i]), "label": self.classes[self.reference.labels[i]]}
                        for i in nearest
                    ],
                }
            )
        return {"input": _data_url(pixels), "actual": actual, "classes": self.classes, "models": models}


def application(demo: Demo) -> Starlette:
    """Return the page and its API as an ASGI application."""
    templates = Jinja2Templates(PAGE)
    lock = asyncio.Lock()

    async def respond(request: Request, function: Callable[..., dict[str, Any]], *arguments: Any) -> Response:
        """Call a function when no other request is running, unless the client has disconnected by then."""
        async with lock:
            if await request.is_disconnected():
                raise ClientDisconnect
            return JSONResponse(await run_in_threadpool(function, *arguments))

    def parse_index(request: Request) -> int:
        text, count = request.path_params["index"], len(demo.test.images)
        if not (text.isdecimal() and len(text) <= len(str(count)) and int(text) < count):
            raise UserError(f"no test image {text[:20]}; the indices are 0 to {count - 1}")
        return int(text)

    async def page(request: Request) -> Response:
        values = {
            "demo": demo,
            "max_bytes": images.MAX_BYTES,
            "formats": FORMAT_LIST,
            "media_types": ",".join(f"image/{name.lower()}" for name in FORMATS),
        }
        return templates.TemplateResponse(request, "page.html", values, headers=SECURITY_HEADERS)

    async def predict(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _error(403, "cross-site request refused")
        if (content := await _read_body(request)) is None:
            return _error(413, f"file too large; the limit is {images.MAX_BYTES:,} bytes: use a smaller file")
        background = request.query_params.get("background", "")
        if background not in BACKGROUNDS:
            raise UserError(f"unknown background {background!r}; expected light or dark")
        return await respond(request, demo.predict, content, BACKGROUNDS[background])

    async def predict_test_image(request: Request) -> Response:
        return await respond(request, demo.predict_test_image, parse_index(request))

    async def test_image(request: Request) -> Response:
        return Response(_png(demo.test.images[parse_index(request)]), media_type="image/png")

    async def user_error(_request: Request, error: Exception) -> Response:
        return _error(400, str(error))

    async def disconnected(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # no one reads it

    return Starlette(
        routes=[
            Route("/", page),
            Route("/predict", predict, methods=["POST"]),
            Route("/test/{index}.png", test_image),
            Route("/test/{index}", predict_test_image),
            Mount("/page", StaticFiles(directory=PAGE)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        exception_handlers={UserError: user_error, ClientDisconnect: disconnected},
    )


class Connection(H11Protocol):
    """A connection, closed if the client takes longer than `REQUEST_SECONDS`, or to make room for a new connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """If there are more than `MAX_CONNECTIONS`, close the oldest one that does not wait for a response."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._expire)
        if len(self.connections) > MAX_CONNECTIONS:
            oldest = min(self.connections, key=lambda one: (one._busy(), one._deadline.when()))  # type: ignore[union-attr]
            self.connections.discard(oldest)
            oldest.transport.abort()

    def _busy(self) -> bool:
        """Return whether the client waits for the server."""
        return self.cycle is not None and not (self.cycle.more_body or self.cycle.response_complete)

    def _expire(self) -> None:
        if self._busy() and not self.flow.write_paused:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._expire)
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Close the connection if it exceeds `MAX_PIPELINED_BYTES`: uvicorn would buffer any number of requests."""
        super().data_received(data)
        if len(self.conn.trailing_data[0]) > MAX_PIPELINED_BYTES:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Extend the deadline."""
        self._deadline.cancel()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._expire)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Report an invalid request, unless the response was sent already; uvicorn would send a second one."""
        if self.cycle:
            self.cycle.disconnected = True  # discard what the application still sends
        if self.cycle and self.cycle.response_started:
            self.transport.abort()
        else:
            super().send_400_response(msg)


class Server(uvicorn.Server):
    """A server that stops even if clients are slow."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the connections still open after `SHUTDOWN_SECONDS`, including any accepted after the interrupt."""
        asyncio.get_running_loop().call_later(SHUTDOWN_SECONDS, self._close_connections)
        await super().shutdown(sockets)

    def _close_connections(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()


def serve(root: Path, port: int) -> None:
    """Serve the page until interrupted.

    Args:
        root: folder of the project.
        port: port to listen on, on this computer only; 0 for any free port.

    Raises:
        UserError: as for `Demo`, or the port is not available.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port {port}: expected 0 to 65535; choose another with --port")
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(f"port {port}: {os.strerror(error.errno or 0)}; choose another with --port") from error
    with listener:
        app = application(Demo(root))
        print(f"http://{HOST}:{listener.getsockname()[1]} (press Ctrl-C to stop)", flush=True)
        # asyncio accepts as many connections as the backlog before it calls `connection_made`.
        config = uvicorn.Config(
            app, http=Connection, ws="none", lifespan="off", log_level="error", backlog=MAX_CONNECTIONS
        )
        try:
            Server(config).run(sockets=[listener])
        except KeyboardInterrupt as interrupt:  # uvicorn raises it again after shutting down
            if interrupt.args:  # SIGTERM, not Ctrl-C
                raise


async def _read_body(request: Request) -> bytes | None:
    """Return the body of a request, or None as soon as it is known to exceed the limit."""
    if int(request.headers.get("content-length", 0)) > images.MAX_BYTES:
        return None
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > images.MAX_BYTES:
            return None
    return bytes(content)


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, {"Connection": "close"})


def _png(image: dataset.Image) -> bytes:
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def _data_url(image: dataset.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}"
