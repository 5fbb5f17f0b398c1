"""How fast kvdb is beside what is installed: `make bench` or `python -m tests.bench`.

Every peer does the same work in interleaved rounds on this machine; what counts is the ratio
of the medians. The echo server answers without parsing: the floor of a server with one thread
per connection.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kvdb.resp import encode_request

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5
SECONDS = 0.6  # per case, peer and round


@dataclass
class Case:
    """`clients` connections; each sends `depth` requests at a time and waits for the answers."""

    name: str
    clients: int
    depth: int
    request: bytes
    keys_per_request: int = 1


VALUE = b"x" * 32
CASES = (
    Case("SET, 1 client", 1, 1, encode_request([b"SET", b"key", VALUE])),
    Case("GET, 1 client", 1, 1, encode_request([b"GET", b"key"])),
    Case("GET, 10 clients", 10, 1, encode_request([b"GET", b"key"])),
    Case("GET, 50 clients", 50, 1, encode_request([b"GET", b"key"])),
    Case("SET, 8 clients, 64 deep", 8, 64, encode_request([b"SET", b"key", VALUE])),
    Case("GET, 8 clients, 64 deep", 8, 64, encode_request([b"GET", b"key"])),
    Case("INCR, 8 clients, 64 deep", 8, 64, encode_request([b"INCR", b"counter"])),
    Case(
        "MGET of 100, 1 client",
        1,
        1,
        encode_request([b"MGET", *(b"key:%d" % number for number in range(100))]),
        100,
    ),
)


# --- peers --------------------------------------------------------------------------------


@contextlib.contextmanager
def process(command: list[str], ready: Callable[[str], int | None]) -> Iterator[int]:
    """Run a server; yield the port that `ready` finds in a line of its output."""
    with tempfile.TemporaryDirectory() as folder:
        running = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert running.stdout is not None
        try:
            port = next((port for line in running.stdout if (port := ready(line))), None)
            if port is None:
                raise RuntimeError(f"{command[0]} did not start")
            drain = threading.Thread(target=running.stdout.read, daemon=True)
            drain.start()
            yield port
        finally:
            running.kill()
            running.wait()


def _listening(line: str) -> int | None:
    match = re.search(r"listening on \S+ port (\d+)", line)
    return int(match[1]) if match else None


def kvdb() -> contextlib.AbstractContextManager[int]:
    return process([sys.executable, "-m", "kvdb", "--in-memory", "--port", "0"], _listening)


def redis() -> contextlib.AbstractContextManager[int]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--daemonize", "no"]
    return process(command, lambda line: port if "eady to accept connections" in line else None)


def echo() -> contextlib.AbstractContextManager[int]:
    command = [sys.executable, "-c", "from tests.bench import serve_echo; serve_echo()"]
    return process(command, _listening)


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := self.request.recv(65536):
            self.request.sendall(data)


def serve_echo() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        print(f"listening on 127.0.0.1 port {server.server_address[1]}", flush=True)
        server.serve_forever()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# --- measuring ----------------------------------------------------------------------------


def reply_length(port: int, request: bytes) -> int:
    """Return how many bytes answer the request (they are the same number each time)."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(2):
            connection.sendall(request)
            length = len(connection.recv(1 << 20))
            connection.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                while data := connection.recv(1 << 20):
                    length += len(data)
            connection.settimeout(None)
        return length


def requests_per_second(port: int, case: Case) -> float:
    """Drive the server from a process of its own, so that it does not share our interpreter."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "drive", str(port), str(CASES.index(case))],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def drive(port: int, case: Case) -> float:
    """Return requests per second: one loop over all connections, the next request at once."""
    import selectors

    if case.keys_per_request > 1:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            pairs = [part for i in range(100) for part in (b"key:%d" % i, VALUE)]
            connection.sendall(encode_request([b"MSET", *pairs]))
            connection.recv(1 << 20)
    # A counter's reply grows with its digits: start where it will not gain one.
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(encode_request([b"SET", b"counter", b"1000000000"]))
        connection.recv(1 << 20)
    batch = case.request * case.depth
    expected = reply_length(port, case.request) * case.depth
    selector = selectors.DefaultSelector()
    missing: dict[socket.socket, int] = {}
    for _ in range(case.clients):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        missing[connection] = expected
        connection.sendall(batch)
    batches, started = 0, time.perf_counter()
    while (now := time.perf_counter()) < started + SECONDS:
        for key, _ in selector.select():
            connection = key.fileobj  # type: ignore[assignment]
            missing[connection] -= len(connection.recv(1 << 20))
            if missing[connection] <= 0:
                batches += 1
                missing[connection] = expected
                connection.sendall(batch)
    return batches * case.depth / (now - started)


def main() -> None:
    peers: dict[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
        "kvdb": kvdb,
        "echo": echo,
    }
    if shutil.which("redis-server"):
        peers["redis"] = redis
    else:
        print("redis-server is not installed: left out")
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(start()) for name, start in peers.items()}
        print(f"requests per second, median of {ROUNDS} rounds; Python {sys.version.split()[0]}")
        header = "".join(f"{name:>10}" for name in peers)
        ratios = "".join(f"{'/' + name:>10}" for name in list(peers)[1:])
        print(f"{'':26}{header}{ratios}")
        for case in CASES:
            rates: dict[str, list[float]] = {name: [] for name in peers}
            for _ in range(ROUNDS):
                for name, port in ports.items():
                    rates[name].append(requests_per_second(port, case))
            medians = {name: statistics.median(values) for name, values in rates.items()}
            row = "".join(f"{median:10.0f}" for median in medians.values())
            row += "".join(f"{medians['kvdb'] / medians[name]:10.2f}" for name in list(peers)[1:])
            print(f"{case.name:26}{row}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["drive"]:
        print(drive(int(sys.argv[2]), CASES[int(sys.argv[3])]))
    else:
        main()
