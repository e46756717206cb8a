"""Load `fashion demo` with many concurrent clients, and print failures and latency as JSON.

python -m benchmarks.load_test
"""

import argparse
import http.client
import json
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from fashion.errors import UserError, run_command

CLIENTS = 50
PHOTOS = Path("tests/photos")


def main() -> None:
    """Start the server, send requests, print the statistics."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_test", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to send requests (default: 60)")
    args = parser.parse_args()
    with subprocess.Popen(["fashion", "demo", "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise UserError("`fashion demo` did not start")
            host = line.split()[0].removeprefix("http://")
            results = send_requests(host, responses(host), args.seconds)
        finally:
            server.send_signal(signal.SIGINT)
    latencies = sorted(latency for client, _ in results for latency in client)
    if len(latencies) < 2:
        raise UserError("fewer than two requests succeeded; see the errors above")
    percentiles = statistics.quantiles(latencies, n=100)
    failed = sum(failed for _, failed in results)
    print(
        json.dumps(
            {
                "clients": CLIENTS,
                "seconds": args.seconds,
                "requests": len(latencies) + failed,
                "failed": failed,
                "latency_seconds": {"median": percentiles[49], "95 %": percentiles[94], "largest": latencies[-1]},
            }
        )
    )


def responses(host: str) -> dict[bytes, bytes]:
    """Return the response to each photo."""
    images = [path.read_bytes() for path in sorted(PHOTOS.iterdir()) if path.suffix != ".md"]
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        return {image: _predict(connection, image) for image in images}


def send_requests(
    host: str, expected: Mapping[bytes, bytes], seconds: float, clients: int = CLIENTS
) -> list[tuple[list[float], int]]:
    """Return, for each client, the latencies of its successful requests in seconds, and the number of failed ones.

    A request fails if its response is missing or differs from the one that is expected for the image.
    """
    images = list(expected)
    end = time.perf_counter() + seconds

    def client(number: int) -> tuple[list[float], int]:
        latencies: list[float] = []
        failed = 0
        with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            while (started := time.perf_counter()) < end:
                image = images[(number + len(latencies) + failed) % len(images)]
                try:
                    correct = _predict(connection, image) == expected[image]
                except (OSError, http.client.HTTPException):
                    correct = False
                    connection.close()  # the next request opens it again
                if correct:
                    latencies.append(time.perf_counter() - started)
                else:
                    failed += 1
        return latencies, failed

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(client, range(clients)))


def _predict(connection: http.client.HTTPConnection, image: bytes) -> bytes:
    """Return the response to an image."""
    connection.request("POST", "/predict", image)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise http.client.HTTPException(f"status {response.status}")
    return content


if __name__ == "__main__":
    run_command(main)
