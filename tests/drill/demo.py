"""Load on `fashion demo`, and hostile clients; meanwhile, all other clients must get the right responses."""

import itertools
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from benchmarks import load_test
from fashion.data import images
from fashion.serving import app
from tests.conftest import served_demo
from tests.drill.project import copy, processes
from tests.drill.row import AttemptError, Result, Row

WARM_UP = 10  # seconds
LOAD_GROWTH = 10  # MiB of memory; a leak of 10 KiB per request would exceed it within a few thousand
ATTACK_GROWTH = 64  # MiB: Python may keep the memory of two maximal uploads
GOOD_CLIENTS = 5
MAX_CLOSING = app.REQUEST_SECONDS + 30  # seconds until the server closes a connection
MAX_STOPPING = app.SHUTDOWN_SECONDS + 5  # seconds

HEADERS = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = HEADERS + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /page/page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MIB = bytes(2**20)

PLANTED_LOAD = {  # lines added to the demo
    "wrong response": """
import itertools
count, predict = itertools.count(1), Demo.predict
Demo.predict = lambda self, *arguments: {} if next(count) % 100 == 0 else predict(self, *arguments)
""",
    "leak": """
leaked, predict = [], Demo.predict
Demo.predict = lambda self, *arguments: leaked.append(bytearray(b"x") * 2**20) or predict(self, *arguments)
""",
}
PLANTED_ATTACK = """
REQUEST_SECONDS = 3600
"""


def content_length(length: int) -> bytes:
    return HEADERS + b"Content-Length: %d\r\n\r\n" % length


SLOW: dict[str, Callable[[], Iterable[bytes]]] = {  # chunks to send, one every `INTERVAL`
    "headers, a byte at a time": lambda: (bytes([byte]) for byte in HEADERS + b"X" * 1000),
    "body, a byte at a time": lambda: itertools.chain([content_length(1000)], itertools.repeat(b"x")),
    "tiny chunks": lambda: itertools.chain([CHUNKED], itertools.repeat(b"1\r\nx\r\n")),
    "invalid chunk after the response": lambda: [CHUNKED.replace(b"predict", b"missing"), b"chunk\r\n"],
    "unread responses": lambda: itertools.chain([(GET + b"\r\n") * 300], itertools.repeat(b"x")),
}
INTERVAL = 0.2  # seconds
FAST: dict[str, Callable[[], Iterable[bytes]]] = {  # chunks to send at once
    "nothing": list,
    "unfinished headers": lambda: [HEADERS],
    "unfinished body just under the limit": lambda: [
        content_length(images.MAX_BYTES),
        *[MIB] * (images.MAX_BYTES // len(MIB) - 1),
    ],
    "Content-Length above the limit": lambda: [content_length(images.MAX_BYTES + 1)],
    "enormous Content-Length": lambda: [content_length(10**20 - 1)],
    "negative Content-Length": lambda: [content_length(-1)],
    "two values of Content-Length": lambda: [HEADERS + b"Content-Length: 1\r\n" + content_length(2)[len(HEADERS) :]],
    "Content-Length and chunks": lambda: [HEADERS + b"Content-Length: 1\r\n" + CHUNKED[len(HEADERS) :], b"0\r\n\r\n"],
    "body longer than Content-Length": lambda: itertools.chain([content_length(3)], itertools.repeat(MIB, 100)),
    "endless chunks": lambda: itertools.chain([CHUNKED], itertools.repeat(b"100000\r\n" + MIB + b"\r\n")),
    "enormous chunk": lambda: [CHUNKED, b"f" * 20 + b"\r\n", *[MIB] * 100],
    "chunk size of many digits": lambda: [CHUNKED, b"f" * 2**20],
    "endless chunk extension": lambda: itertools.chain([CHUNKED, b"1;"], itertools.repeat(MIB)),
    "invalid chunk": lambda: [CHUNKED, b"chunk\r\n"],
    "endless trailers": lambda: itertools.chain([CHUNKED, b"0\r\n"], itertools.repeat(b"X: y\r\n")),
    "thousands of headers": lambda: [GET + b"X: y\r\n" * 100_000 + b"\r\n"],
    "endless header": lambda: itertools.chain([GET + b"X: "], itertools.repeat(b"x" * 2**20)),
    "endless path": lambda: itertools.chain([b"GET /"], itertools.repeat(b"x" * 2**20)),
    "pipelined requests": lambda: itertools.repeat((GET + b"\r\n") * 10_000),
    "TLS": lambda: [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)],
    "HTTP/2": lambda: [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    "random bytes": lambda: [random.Random(1).randbytes(100_000)],  # noqa: S311 - repeatable
}
HANG_UPS: dict[str, tuple[bytes, int]] = {  # bytes to send, and of the response to read
    "connecting": (b"", 0),
    "the headers": (HEADERS, 0),
    "half of the body": (content_length(2 * 10**6) + MIB, 0),
    "the request": (GET.replace(b"page/page.js", b"test/1") + b"\r\n", 0),
    "a part of the response": (GET.replace(b"page/page.js", b"test/1") + b"\r\n", 100),
}


@dataclass
class Demo:
    """A running demo.

    Attributes:
        host: host and port.
        server: its process.
        expected: the response to each photo without load.
        faults: a message for each fault.
    """

    host: str
    server: psutil.Process
    expected: dict[bytes, bytes]
    faults: list[str] = field(default_factory=list)

    def connect(self) -> socket.socket:
        """Open a connection."""
        host, port = self.host.split(":")
        return socket.create_connection((host, int(port)), MAX_CLOSING)

    def load(self, seconds: float, clients: int) -> int:
        """Send photos, note the requests that fail, and return the number of requests."""
        results = load_test.send_requests(self.host, self.expected, seconds, clients)
        failed = sum(failed for _, failed in results)
        self.faults += ["a response is missing or wrong"] * failed
        return failed + sum(len(latencies) for latencies, _ in results)


@contextmanager
def served(folder: Path, planted: str) -> Iterator[Demo]:
    """Run the demo of the small project, with lines added to its code. It must stop cleanly despite slow clients.

    Raises:
        AttemptError: it does not start, answer or stop.
    """
    project = copy(folder)
    with (project.folder / "fashion" / "serving" / "app.py").open("a", encoding="utf-8") as file:
        file.write(planted)
    with ExitStack() as slow:
        try:
            with served_demo(project.folder, project.environment) as address:
                (server,) = processes(project.folder)
                host = address.removeprefix("http://")
                demo = Demo(host, server, load_test.responses(host))
                yield demo
                for request in (b"", HEADERS, content_length(9), CHUNKED):
                    slow.enter_context(demo.connect()).sendall(request)
                stopping = time.monotonic()
            if (taken := time.monotonic() - stopping) > MAX_STOPPING:
                demo.faults.append(f"the demo stopped after {taken:.0f} s, not within {MAX_STOPPING}")
        except (AssertionError, OSError, psutil.Error, subprocess.TimeoutExpired) as error:
            raise AttemptError(f"the demo failed: {error!r}") from error
    if left := [path.name for path in (folder / "tmp").iterdir()]:
        demo.faults.append(f"left over: {', '.join(left)}")


@contextmanager
def flat_memory(demo: Demo, limit: int) -> Iterator[None]:
    """Note if the memory of the server grows by more than `limit` MiB meanwhile."""
    before = demo.server.memory_info().rss
    yield
    growth = (demo.server.memory_info().rss - before) / 2**20
    if growth > limit:
        demo.faults.append(f"the memory grew by {growth:.0f} MiB, not by at most {limit}")


def load(folder: Path, tries: int, planted: bool) -> Result:
    """Send photos for `tries` seconds, or 5 with each planted fault; an attempt is a request."""
    if planted:
        found = [_load(folder / name, 5, lines).faults for name, lines in PLANTED_LOAD.items()]
        return Result(1, found[0] if all(found) else [])
    return _load(folder, tries, "")


def _load(folder: Path, seconds: float, planted: str) -> Result:
    folder.mkdir(exist_ok=True)
    with served(folder, planted) as demo:
        tried = demo.load(min(seconds, WARM_UP), load_test.CLIENTS)
        with flat_memory(demo, LOAD_GROWTH):
            tried += demo.load(seconds, load_test.CLIENTS)
    return Result(tried, demo.faults)


def attack(folder: Path, tries: int, planted: bool) -> Result:
    """Be `tries` hostile clients while others send photos; then open more connections than the server accepts."""
    with served(folder, PLANTED_ATTACK if planted else "") as demo:
        demo.load(min(tries, WARM_UP), GOOD_CLIENTS)
        with flat_memory(demo, ATTACK_GROWTH), ThreadPoolExecutor() as pool:
            load = pool.submit(demo.load, min(tries, 60), GOOD_CLIENTS)
            with ThreadPoolExecutor(64) as clients:
                faults = clients.map(lambda number: hostile(demo, KINDS[number % len(KINDS)]), range(tries))
                demo.faults += filter(None, faults)
            load.result()  # first: to make room for those below, the server would close connections of the load
            with ExitStack() as stack:
                idle = [stack.enter_context(demo.connect()) for _ in range(2 * app.MAX_CONNECTIONS)]
                left = [exchange(connection, [], 0, seconds=5) for connection in idle[: app.MAX_CONNECTIONS]]
                demo.faults += [*filter(None, left)][:1]
                image, expected = next(iter(demo.expected.items()))
                if requests.post(f"http://{demo.host}/predict", image, timeout=60).content != expected:
                    demo.faults.append("the response after the attack is wrong")
    return Result(tries, demo.faults)


def hostile(demo: Demo, kind: str) -> str:
    """Be one hostile client, and return what the server did wrong."""
    try:
        with demo.connect() as connection:
            if kind in HANG_UPS:
                content, length = HANG_UPS[kind]
                connection.sendall(content)
                connection.recv(length)
                return ""
            fault = exchange(connection, (SLOW | FAST)[kind](), INTERVAL if kind in SLOW else 0)
    except OSError as error:
        fault = str(error)
    return fault and f"{kind}: {fault}"


def exchange(connection: socket.socket, chunks: Iterable[bytes], interval: float, seconds: float = MAX_CLOSING) -> str:
    """Send chunks until the server closes the connection; return what was wrong with that or with the response."""
    end = time.monotonic() + seconds
    response = b""
    try:
        for chunk in chunks:
            connection.sendall(chunk)
            time.sleep(interval)
            if time.monotonic() > end:
                raise TimeoutError
        connection.settimeout(max(1, end - time.monotonic()))
        while received := connection.recv(2**16):
            response += received
    except TimeoutError:
        return "the connection is still open"
    except ConnectionError:
        pass  # the server closed it before it read all
    return f"the response is {response[:50]!r}" if response and not response.startswith(b"HTTP/1.1 4") else ""


KINDS = [*SLOW, *FAST, *HANG_UPS]
ROWS = (
    Row("50 clients send images to the demo for a minute", 60, load),
    Row("Hostile clients of the demo: slow, hanging up, oversized or malformed requests", 2 * len(KINDS), attack),
)
