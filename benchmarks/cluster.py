"""A Ray cluster whose nodes are cores of this machine."""

import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from fashion.errors import UserError

HOST = "127.0.1.{}"  # on Linux, all of 127.0.0.0/8 is the loopback device; Ray replaces 127.0.0.1 by a public address
# Ray caches the token, so there is one per process.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",  # Ray listens on all network interfaces
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://localhost:9",  # even then, Ray would report that usage reports are disabled
}


@contextmanager
def cluster(nodes: Sequence[Sequence[int]]) -> Iterator[None]:
    """Start a cluster and set RAY_ADDRESS to it; stop it after the block.

    Args:
        nodes: the cores of each node, by their numbers; its trials run on no others.

    Raises:
        UserError: Ray does not start.
    """
    port = free_port()
    address = f"{HOST.format(1)}:{port}"
    os.environ |= {**ENVIRONMENT, "RAY_ADDRESS": address}
    with ExitStack() as stack:
        stack.callback(os.environ.pop, "RAY_ADDRESS")
        # Of sockets, whose paths must be short; TMPDIR may be a long one.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", dir="/tmp"))
        head = ("--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false")
        for number, cores in enumerate(nodes, start=1):
            role = (*head, f"--temp-dir={folder}") if number == 1 else (f"--address={address}",)
            _start(stack, cores, f"--node-ip-address={HOST.format(number)}", *role)
        yield


def _start(stack: ExitStack, cores: Sequence[int], *options: str) -> None:
    """Start a node, which ends with `stack`, and wait until it is ready."""
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores))]
    ports = ("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0")  # any free ones
    command = [*pinned, "ray", "start", "--block", f"--num-cpus={len(cores)}", *ports, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stack.callback(_stop, process)
    output = []
    for line in process.stdout or ():
        output.append(line)
        if "block forever" in line:
            return
    raise UserError(f"`ray start` exited with {process.wait()}:\n{''.join(output)}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()  # `ray start --block` stops what it has started; `ray stop` would stop other clusters, too
    process.communicate()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
