"""Have many clients at once ask `fashion demo` for a minute, and print what became of it as JSON.

python -m benchmarks.load
"""

import argparse
import http.client
import json
import signal
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fashion.errors import UserError, run_command

CLIENTS = 50
PICTURES = sorted(path for path in Path("tests/photos").iterdir() if path.suffix != ".md")


def main() -> None:
    """Serve, ask, count."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to ask (default: 60)")
    args = parser.parse_args()
    pictures = [path.read_bytes() for path in PICTURES]
    with subprocess.Popen(["fashion", "demo", "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        said = next(iter(server.stdout or ()), None)
        if said is None:
            raise UserError("`fashion demo` did not start")
        host = said.split()[0].removeprefix("http://")
        expected = [_ask(http.client.HTTPConnection(host), picture) for picture in pictures]
        end = time.perf_counter() + args.seconds

        def client(number: int) -> tuple[list[float], int]:
            connection = http.client.HTTPConnection(host, timeout=60)
            latencies: list[float] = []
            lost = 0
            while (started := time.perf_counter()) < end:
                which = (number + len(latencies)) % len(pictures)
                try:
                    lost += _ask(connection, pictures[which]) != expected[which]
                except (OSError, http.client.HTTPException):
                    lost += 1
                    connection.close()
                latencies.append(time.perf_counter() - started)
            return latencies, lost

        with ThreadPoolExecutor(CLIENTS) as clients:
            found = list(clients.map(client, range(CLIENTS)))
        server.send_signal(signal.SIGINT)
    latencies = sorted(latency for each, _ in found for latency in each)
    cuts = statistics.quantiles(latencies, n=100)
    print(
        json.dumps(
            {
                "clients": CLIENTS,
                "seconds": args.seconds,
                "asked": len(latencies),
                "lost_or_wrong": sum(lost for _, lost in found),
                "latency_seconds": {"median": cuts[49], "95 %": cuts[94], "largest": latencies[-1]},
            }
        )
    )


def _ask(connection: http.client.HTTPConnection, picture: bytes) -> bytes:
    """Return the answer to a picture."""
    connection.request("POST", "/answer", picture)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise http.client.HTTPException(f"status {response.status}")
    return content


if __name__ == "__main__":
    run_command(main)
