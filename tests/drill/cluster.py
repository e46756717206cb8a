"""A study on a Ray cluster whose node or head is killed, or whose network is cut; every trial finishes exactly once."""

import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from benchmarks.cluster import ENVIRONMENT, HOST, free_port
from tests.conftest import ROOT
from tests.drill.project import matching_processes
from tests.drill.row import AttemptError, Row, once, repeated
from tests.ray_cluster import HEALTH_CHECKS, kill_node, node

TABLE = "trials.csv"
STUDY = [sys.executable, "-m", "tests.drill.study"]
LAST = 8  # the fault happens after at most this many results
TIMEOUT = 240  # seconds in which the study must end
RESULT = re.compile(r"^(.*): validation accuracy", re.MULTILINE)
LOST_HEAD = re.compile("^error: (lost the head of|cannot connect to) .*Ray cluster", re.MULTILINE)


@dataclass(frozen=True)
class Machine:
    """Where a node runs: its address, and what precedes commands that run there."""

    address: str
    prefix: Sequence[str] = ()


MACHINES = Machine(HOST.format(1)), Machine(HOST.format(2))


@contextmanager
def cluster(machines: Sequence[Machine]) -> Iterator[tuple[list[subprocess.Popen[str]], dict[str, str]]]:
    """Start a cluster of a node per machine; yield the first process of each and the environment of drivers.

    Raises:
        AttemptError: after the block, when all nodes have been killed, a process is left over.
    """
    port = free_port()
    # Not in the attempt's own folder: the paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        environment = {**os.environ, **ENVIRONMENT, **HEALTH_CHECKS, "RAY_TMPDIR": scratch, "PYTHONPATH": str(ROOT)}
        address = f"{machines[0].address}:{port}"
        head = ("--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false")
        with ExitStack() as stack:
            nodes = []
            for number, machine in enumerate(machines):
                role = (f"--address={address}",) if number else head
                options = (*role, f"--node-ip-address={machine.address}", "--dashboard-agent-listen-port=0")
                nodes.append(stack.enter_context(node(environment, *options, prefix=machine.prefix)))
            yield nodes, {**environment, "RAY_ADDRESS": address}
        _, alive = psutil.wait_procs(
            matching_processes(lambda process: process.environ().get("RAY_TMPDIR") == scratch), timeout=60
        )
        for process in alive:
            process.kill()
        if alive:
            raise AttemptError(f"still running: {alive}")


class Driver:
    """A run of the study.

    Args:
        folder: where it runs.
        environment: of the process.
        name: of the file of its output.
        prefix: what precedes its command.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], name: str, prefix: Sequence[str] = ()) -> None:
        self.file = folder / name
        with self.file.open("w") as file:
            self.process = subprocess.Popen(
                [*prefix, *STUDY], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        """What it has printed."""
        return self.file.read_text(encoding="utf-8")

    def wait_for(self, results: int) -> None:
        """Wait until it has printed a number of results.

        Raises:
            AttemptError: it ends before, or takes too long.
        """
        end = time.monotonic() + TIMEOUT
        while len(RESULT.findall(self.output)) < results:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AttemptError(f"found fewer than {results} results in:\n{self.output}")
            time.sleep(0.05)

    def end(self) -> int:
        """Wait for its end; return its exit code.

        Raises:
            AttemptError: it takes too long, or prints a traceback.
        """
        try:
            code = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise AttemptError(f"the study did not end within {TIMEOUT} s; it printed:\n{self.output}") from error
        finally:
            self.process.kill()
        if "Traceback" in self.output:
            raise AttemptError(f"the study printed a traceback:\n{self.output}")
        return code

    def succeed(self) -> None:
        """Wait for its end.

        Raises:
            AttemptError: as for `end`, or it fails.
        """
        if self.end():
            raise AttemptError(f"the study failed:\n{self.output}")


@once
def undisturbed() -> str:
    """Return the table of a study on a cluster without faults."""
    with tempfile.TemporaryDirectory(prefix="fashion-drill-") as folder, cluster(MACHINES[:1]) as (_, environment):
        Driver(Path(folder), environment, "output").succeed()
        return (Path(folder) / TABLE).read_text(encoding="utf-8")


def check(folder: Path, output: str, choices: random.Random, planted: bool) -> None:
    """Check the table, and that each trial has ended once in all runs.

    Args:
        folder: of the study.
        output: of all its runs.
        choices: chooses the planted fault.
        planted: remove a row of the table or double it.

    Raises:
        AttemptError: the table differs from the undisturbed one, or a trial has ended twice.
    """
    path = folder / TABLE
    if planted:
        header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        row = choices.choice(rows)
        changed = [*rows, row] if choices.random() < 0.5 else [other for other in rows if other != row]
        path.write_text("".join([header, *changed]), encoding="utf-8")
    found, expected = (Counter(text.splitlines()) for text in (path.read_text(encoding="utf-8"), undisturbed()))
    problems = [f"missing row {row}" for row in expected - found] + [f"extra row {row}" for row in found - expected]
    problems += [
        f"{trial} ended {count} times" for trial, count in Counter(RESULT.findall(output)).items() if count > 1
    ]
    if problems:
        raise AttemptError("; ".join(problems))


@contextmanager
def disturbed(driver: Driver, choices: random.Random, fault: Callable[[], object]) -> Iterator[float]:
    """Cause a fault at a random moment of a study; yield the time (`time.monotonic`). Then kill the study."""
    try:
        driver.wait_for(choices.randint(0, LAST))
        time.sleep(choices.random())
        fault()
        yield time.monotonic()
    finally:
        driver.process.kill()
        driver.process.wait()


def node_killed(folder: Path, choices: random.Random, planted: bool) -> float:
    """Kill the second node; the study must end by itself."""
    with cluster(MACHINES) as ((_, second), environment):
        driver = Driver(folder, environment, "output")
        with disturbed(driver, choices, partial(kill_node, second)) as killed:
            driver.succeed()
            recovered = time.monotonic() - killed
    check(folder, driver.output, choices, planted)
    return recovered


def head_killed(folder: Path, choices: random.Random, planted: bool) -> float:
    """Kill the head; the study must end with an error, and run only what is missing on a new cluster."""
    with cluster(MACHINES) as ((head, _), environment):
        first = Driver(folder, environment, "first")
        with disturbed(first, choices, partial(kill_node, head)) as killed:
            code, noticed = first.end(), time.monotonic() - killed
    if code != 1 or not LOST_HEAD.search(first.output):
        raise AttemptError(f"expected an error that the head is lost, found exit code {code} and:\n{first.output}")
    with cluster(MACHINES[:1]) as (_, environment):
        started = time.monotonic()
        second = Driver(folder, environment, "second")
        second.succeed()
        recovered = noticed + time.monotonic() - started
    check(folder, first.output + second.output, choices, planted)
    return recovered


@contextmanager
def network() -> Iterator[tuple[list[Machine], Callable[[str], None]]]:
    """Connect two network namespaces by a bridge in a third.

    Yield the machines, and a function that sets the connection of the second one "up" or "down".
    """
    prefix = f"drill-{secrets.token_hex(4)}"
    names = [f"{prefix}-{part}" for part in ("bridge", "0", "1")]
    switch, machines = names[0], []

    def ip(*command: str) -> None:
        subprocess.run(["ip", *command], check=True)

    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
        ip("-n", switch, "link", "add", "name", "bridge0", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge0", "up")
        for number, name in enumerate(names[1:]):
            address, port = f"10.77.0.{number + 1}", f"port{number}"
            ip("-n", switch, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", switch, "link", "set", port, "master", "bridge0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "route", "add", "default", "dev", "eth0")  # from which Ray finds its own address
            machines.append(Machine(address, ("ip", "netns", "exec", name)))
        yield machines, lambda state: ip("-n", switch, "link", "set", "port1", state)


def network_cut(folder: Path, choices: random.Random, planted: bool) -> float:
    """Cut the network between the nodes, for good or for a while; the study must end by itself."""
    undisturbed()
    pause = choices.choice([None, choices.uniform(0.5, 15)])
    with network() as (machines, switch), cluster(machines) as (_, environment):
        driver = Driver(folder, environment, "output", machines[0].prefix)
        with disturbed(driver, choices, partial(switch, "down")) as cut:
            if pause:
                time.sleep(pause)
                switch("up")
            driver.succeed()
            recovered = time.monotonic() - cut
    check(folder, driver.output, choices, planted)
    return recovered


def no_namespaces() -> str:
    """Return why there can be no network namespaces; empty if there can."""
    unshare = ["unshare", "--net", "--mount", "true"]
    if not (shutil.which("ip") and shutil.which("unshare")) or subprocess.run(unshare, capture_output=True).returncode:
        return "network namespaces need Linux, root and iproute2"
    return ""


ROWS = (
    Row("A node of the cluster is killed at a random moment of a study", 8, repeated(node_killed, 2)),
    Row("The cluster's head is killed at a random moment of a study", 4, repeated(head_killed, 2)),
    Row(
        "The network between the cluster's nodes is cut, for good or for a while",
        8,
        repeated(network_cut, 2),
        no_namespaces(),
    ),
)
