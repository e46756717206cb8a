"""A page to try the models on, for a browser on this machine: `fashion demo`. It calls nobody."""

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
from jaxtyping import UInt8
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

from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.serving import photos
from fashion.serving.artifacts import Artifacts
from fashion.serving.classifier import Classifier, exported
from fashion.serving.neighbours import Neighbours

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
NEAREST = 5  # training images beside an answer
BACKGROUNDS: dict[str, photos.Background | None] = {"": None, "light": "light", "dark": "dark"}
ONLY_FROM_HERE = {"Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:"}


class Demo:
    """Every exported model of a project. One question at a time: nothing here is for several threads.

    Attributes:
        classes: their names, in the order of the probabilities.
        train: the training images.
        test: the test images.
    """

    def __init__(self, root: Path) -> None:
        """Load the models of the project in the folder `root`, and its images.

        Raises:
            UserError: a file that the pipeline makes is missing or was altered, or there is no exported model.
        """
        artifacts = Artifacts(root)
        names = exported(artifacts)
        if not names:
            raise UserError("no exported model; `dvc repro` makes them")
        self._models = {name: Classifier(artifacts, name) for name in names}
        features = {name: artifacts.read_made_from("data/train.npz", f"models/{name}/features.npy") for name in names}
        self._neighbours = {name: Neighbours(np.load(io.BytesIO(content))) for name, content in features.items()}
        self.train, self.test = (_split(artifacts, f"data/{part}.npz") for part in ("train", "test"))
        first = self._models[names[0]]
        self.classes, self._shape = first.classes, first.image_shape

    def answer(self, content: bytes, background: photos.Background | None) -> dict[str, Any]:
        """Return what the models say of a picture file, ready to be sent as JSON.

        Raises:
            UserError: as for `photos.prepare`.
        """
        return self._answer(photos.prepare(content, self._shape, background), None)

    def answer_test_image(self, index: int) -> dict[str, Any]:
        """Return what the models say of the test image of that index, and what it is."""
        return self._answer(self.test.images[index], self.classes[self.test.labels[index]])

    def _answer(self, seen: UInt8[np.ndarray, "height width"], actual: str | None) -> dict[str, Any]:
        models = []
        for name, model in self._models.items():
            answers = model(seen[None])
            nearest = self._neighbours[name].nearest(answers.features[0], min(NEAREST, len(self.train.images)))
            models.append(
                {
                    "name": name,
                    "probabilities": answers.probabilities[0].tolist(),
                    "familiar": bool(answers.familiar[0]),
                    "nearest": [
                        {"image": _data(self.train.images[i]), "label": self.classes[self.train.labels[i]]}
                        for i in nearest
                    ],
                }
            )
        return {"seen": _data(seen), "actual": actual, "classes": self.classes, "models": models}


def application(demo: Demo) -> Starlette:
    """Return the page and what it asks for, as an ASGI application."""
    templates = Jinja2Templates(PAGE)
    turn = asyncio.Lock()

    async def answered(request: Request, question: Callable[..., dict[str, Any]], *arguments: Any) -> Response:
        """Ask when it is this request's turn, unless its client has gone by then."""
        async with turn:
            if await request.is_disconnected():
                raise ClientDisconnect
            return JSONResponse(await run_in_threadpool(question, *arguments))

    def index(request: Request) -> int:
        text, count = request.path_params["index"], len(demo.test.images)
        if not (text.isdecimal() and len(text) <= len(str(count)) and int(text) < count):
            raise UserError(f"no test image {text[:20]}; they are numbered from 0 to {count - 1}")
        return int(text)

    async def page(request: Request) -> Response:
        values = {"demo": demo, "max_bytes": photos.MAX_BYTES}
        return templates.TemplateResponse(request, "page.html", values, headers=ONLY_FROM_HERE)

    async def answer(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _refusal(403, "asked by a page of somewhere else")
        if (content := await _received(request)) is None:
            return _refusal(413, f"too large; at most {photos.MAX_BYTES:,} bytes are read: make it smaller")
        told = request.query_params.get("background", "")
        if told not in BACKGROUNDS:
            raise UserError(f"background {told!r}; light or dark is expected, or neither")
        return await answered(request, demo.answer, content, BACKGROUNDS[told])

    async def answer_test_image(request: Request) -> Response:
        return await answered(request, demo.answer_test_image, index(request))

    async def test_image(request: Request) -> Response:
        return Response(_png(demo.test.images[index(request)]), media_type="image/png")

    async def refuse(_request: Request, error: Exception) -> Response:
        return _refusal(400, str(error))

    async def drop(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    return Starlette(
        routes=[
            Route("/", page),
            Route("/answer", answer, methods=["POST"]),
            Route("/test/{index}.png", test_image),
            Route("/test/{index}", answer_test_image),
            Mount("/page", StaticFiles(directory=PAGE)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        exception_handlers={UserError: refuse, ClientDisconnect: drop},
    )


def serve(root: Path, port: int) -> None:
    """Serve the page of the project in the folder `root` until interrupted.

    Args:
        root: the project.
        port: to listen to, on this machine alone; 0 for any that is free.

    Raises:
        UserError: as for `Demo`, or the port cannot be had.
    """
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(f"port {port}: {os.strerror(error.errno or 0)}; choose another with --port") from error
    except OverflowError as error:
        raise UserError(f"port {port}: there are ports 1 to 65535; choose another with --port") from error
    with listener:
        app = application(Demo(root))
        print(f"http://{HOST}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=3)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt as interrupt:  # which it raises again when it has ended
            if interrupt.args:  # SIGTERM, not Ctrl-C
                raise


async def _received(request: Request) -> bytes | None:
    """Return the body of a request, or nothing as soon as it is known to be over the limit."""
    if int(request.headers.get("content-length", 0)) > photos.MAX_BYTES:
        return None
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > photos.MAX_BYTES:
            return None
    return bytes(content)


def _refusal(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status, {"Connection": "close"})


def _split(artifacts: Artifacts, path: str) -> Split:
    artifacts.read(path)  # refuses what was altered
    return dataset.load(artifacts.root / path)


def _png(image: UInt8[np.ndarray, "height width"]) -> bytes:
    Image.fromarray(image).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def _data(image: UInt8[np.ndarray, "height width"]) -> str:
    """Return an image as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}"
