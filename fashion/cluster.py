"""The Ray cluster that runs trials."""

import logging
import os
import signal
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from fashion.errors import UserError

TIMEOUT = 10  # seconds to connect to a cluster
HEAD_TIMEOUT = 30  # seconds without the head after which it is lost; after 60, Ray ends the process


@contextmanager
def connect(packages: Collection[str]) -> Iterator[ModuleType]:
    """Connect to the cluster at RAY_ADDRESS or start one on this machine; yield the module ray.

    Args:
        packages: of this project, besides fashion, to send to the workers.

    Raises:
        UserError: Ray is not installed; or RAY_ADDRESS is not HOST:PORT, no cluster answers there, it rejects the
            token, or this machine is not one of its nodes.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    if "://" in address:  # such as Ray Client's, whose driver would run on another machine
        raise UserError(
            f"RAY_ADDRESS={address}: expected the HOST:PORT of a Ray cluster that this machine belongs to; unset it to "
            "use this machine alone"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_TMPDIR", "/tmp")  # noqa: S108 - of sockets; their paths must be short, TMPDIR may be long
    if address != "local":  # Ray would otherwise retry for 15 minutes
        os.environ |= {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": str(TIMEOUT)}
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is not installed; install the `cluster` extra: pip install -e '.[cluster]'") from error
    root, handler = Path(__file__).parents[1], signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"py_modules": [str(root / package) for package in sorted({"fashion", *packages})]},
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        if address == "local":
            raise
        cause = error.__cause__  # a traceback, whose last line is the error
        reason = str(cause).strip().splitlines()[-1] if cause else " ".join(str(error).split())
        raise UserError(
            f"cannot connect to a Ray cluster at RAY_ADDRESS={address} ({reason}); start a node on this machine with "
            "`ray start`, or unset RAY_ADDRESS to use this machine alone"
        ) from error
    signal.signal(signal.SIGTERM, handler)  # Ray replaces it
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass
class Head:
    """The node of the cluster without which it cannot go on.

    Attributes:
        address: HOST:PORT.
        seen: when it last accepted a connection (`time.monotonic`).
    """

    address: str
    seen: float = field(default_factory=time.monotonic)

    def alive(self) -> bool:
        """Return whether it accepts a connection.

        Raises:
            UserError: it has not accepted a connection for 30 seconds.
        """
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), TIMEOUT).close()
        except OSError as error:
            if time.monotonic() - self.seen > HEAD_TIMEOUT:
                raise UserError(
                    f"lost the head of the Ray cluster at {self.address} ({error}); start a cluster and "
                    "run this again: the results so far are kept"
                ) from error
            return False
        self.seen = time.monotonic()
        return True


def place() -> tuple[str, str]:
    """Return Ray's ids of the task that calls this and of its node."""
    import ray

    context = ray.get_runtime_context()
    return str(context.get_task_id()), context.get_node_id()


def lost_nodes() -> set[str]:
    """Return Ray's ids of the nodes that have been lost."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}  # type: ignore[no-untyped-call]


def gpus(ray: ModuleType) -> int:
    """Return the number of GPUs per trial: 1 if any node has one."""
    return int(ray.cluster_resources().get("GPU", 0) > 0)


def use_cores(cores: int) -> None:
    """Limit TensorFlow in this worker to that many cores."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cores)
