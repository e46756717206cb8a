"""Ray nodes on this machine that can be killed, and studies to run on them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from tests.conftest import MODELS

RAY = str(Path(sys.executable).with_name("ray"))
HEALTH_CHECKS = {  # a lost node is noticed in ten seconds
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


def write_study(folder: Path, **values: Any) -> Path:
    """Write the params.yaml of a study."""
    path = folder / "study" / "params.yaml"
    path.parent.mkdir(exist_ok=True)
    YAML().dump({"seeds": [1, 2], "all": {"model": MODELS[0]}, "variants": {}, **values}, path)
    return path


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read the lines that a process prints until one contains `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError(f"found no {text!r} in {''.join(lines)!r}")


def in_session(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a node's processes: those in the session of the `ray start` that started it."""
    return [other for other in psutil.process_iter() if session(other) == process.pid]


def session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def kill_node(process: subprocess.Popen[str]) -> None:
    for member in in_session(process):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


@contextmanager
def node(environment: Mapping[str, str], *options: str, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Start a node with one core; yield its session leader; then kill the session.

    `prefix` precedes its command, such as `ip netns exec NAME`.
    """
    command = [*prefix, RAY, "start", *options, "--block", "--num-cpus=1", "--min-worker-port=0", "--max-worker-port=0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            read_until(process, "--block")
            yield process
        finally:
            kill_node(process)
