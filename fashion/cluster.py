"""The Ray cluster that runs trials."""

import logging
import os
import signal
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fashion.errors import UserError, one_line

TIMEOUT = 10  # seconds to connect to a cluster
HEAD_TIMEOUT = 30  # seconds without contact after which the head counts as lost; after 60, Ray kills the process


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
    # Detect an unresponsive node after 95 seconds instead of seven minutes. Ray's servers reject more than one ping per
    # minute.
    os.environ.setdefault("RAY_grpc_client_keepalive_time_ms", "65000")
    os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", "30000")
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
        reason = str(cause).strip().splitlines()[-1] if cause else one_line(error)
        raise UserError(
            f"cannot connect to a Ray cluster at RAY_ADDRESS={address} ({reason}); start a node on this machine with "
            "`ray start`, or unset RAY_ADDRESS to use this machine alone"
        ) from error
    signal.signal(signal.SIGTERM, handler)  # Ray replaces it
    try:
        yield ray
    finally:
        ray.shutdown()


class Head:
    """The head node of a cluster; without it, the cluster stops."""

    def __init__(self, address: str) -> None:
        """Take its HOST:PORT."""
        self._address = address
        self._unreachable_since: float | None = None

    def check(self) -> None:
        """Connect to it.

        Raises:
            UserError: it has been unreachable for `HEAD_TIMEOUT`.
        """
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), TIMEOUT).close()
            self._unreachable_since = None
        except OSError as error:
            now = time.monotonic()
            self._unreachable_since = self._unreachable_since or now
            if now - self._unreachable_since >= HEAD_TIMEOUT:
                raise UserError(
                    f"lost the head of the Ray cluster at {self._address} ({error}); run this again, with "
                    "RAY_ADDRESS after you have restarted the cluster: the results so far are kept"
                ) from error


def gpus(ray: ModuleType) -> int:
    """Return the number of GPUs per trial: 1 if any node has one."""
    return int(ray.cluster_resources().get("GPU", 0) > 0)


def use_cores(cores: int) -> None:
    """Limit TensorFlow in this worker to that many cores."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cores)
