"""Have many clients at once ask `fashion demo` for a minute, and print what became of it as JSON.

python -m benchmarks.load_test
"""

import argparse
import http.client
import json
import signal
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from fashion.errors import UserError, run_command

CLIENTS = 50
PICTURES = Path("tests/photos")


def main() -> None:
    """Serve, ask, count."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_test", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to ask (default: 60)")
    args = parser.parse_args()
    pictures = [path.read_bytes() for path in sorted(PICTURES.iterdir()) if path.suffix != ".md"]
    with subprocess.Popen(["fashion", "demo", "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            said = server.stdout.readline() if server.stdout else ""
            if not said:
                raise UserError("`fashion demo` did not start")
            found = _load(said.split()[0].removeprefix("http://"), pictures, args.seconds)
        finally:
            server.send_signal(signal.SIGINT)
    latencies = sorted(latency for each, _ in found for latency in each)
    if len(latencies) < 2:
        raise UserError("hardly any question was answered; the terminal says why")
    cuts = statistics.quantiles(latencies, n=100)
    lost = sum(lost for _, lost in found)
    print(
        json.dumps(
            {
                "clients": CLIENTS,
                "seconds": args.seconds,
                "asked": len(latencies) + lost,
                "lost_or_wrong": lost,
                "latency_seconds": {"median": cuts[49], "95 %": cuts[94], "largest": latencies[-1]},
            }
        )
    )


def _load(host: str, pictures: list[bytes], seconds: float) -> list[tuple[list[float], int]]:
    """Return, for each client, the seconds of its right answers, and how many answers were lost or wrong."""
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        expected = [_ask(connection, picture) for picture in pictures]
    end = time.perf_counter() + seconds

    def client(number: int) -> tuple[list[float], int]:
        latencies: list[float] = []
        lost = 0
        with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            while (started := time.perf_counter()) < end:
                which = (number + len(latencies) + lost) % len(pictures)
                try:
                    same = _ask(connection, pictures[which]) == expected[which]
                except (OSError, http.client.HTTPException):
                    same = False
                    connection.close()  # to be opened anew
                if same:
                    latencies.append(time.perf_counter() - started)
                else:
                    lost += 1
        return latencies, lost

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(client, range(CLIENTS)))


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
