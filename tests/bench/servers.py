"""Starts kvdb and its peers, each in an empty folder, and ends them whatever happens."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent.parent
PING = b"*1\r\n$4\r\nPING\r\n"
_PATIENCE = 60.0  # seconds for a start; loading a million keys takes a few


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    name: str
    port: int
    pid: int


Running = AbstractContextManager[Server]
Starter = Callable[[], Running]


def kvdb(*flags: str) -> Running:
    """Run kvdb with these flags; without any, in memory."""
    port = free_port()
    command = [sys.executable, "-m", "kvdb", "--port", str(port), *(flags or ["--in-memory"])]
    return _run("kvdb", command, port, PING)


def roomy_kvdb(data: Path | None = None) -> Running:
    """Run kvdb with a budget that a million small keys do not fill; `data` is saved on request."""
    where = [str(data), "--snapshot-interval", "0"] if data else ["--in-memory"]
    return kvdb(*where, "--max-mb", "1024")


def memcached_kvdb() -> Running:
    """Run kvdb for memcached clients: the server's port is theirs."""
    port = free_port()
    command = [sys.executable, "-m", "kvdb", "--port", "0", "--memcached-port", str(port)]
    return _run("kvdb", [*command, "--in-memory"], port, b"version\r\n")


def listened_kvdb() -> Running:
    """Run kvdb with somebody who is told of every change, and does nothing about it."""
    return _run_python("kvdb", "serve_with_listener")


def serve_with_listener(port: int) -> None:
    from kvdb.config import Config
    from kvdb.service import Service

    service = Service(Config(data=None, port=port, max_bytes=1024 * 1024 * 1024))
    service.store.add_listener(lambda step, facts: None)
    service.start()
    service.stop_requests.get()


def redis(*flags: str) -> Running:
    """Run redis-server, without persistence unless it is asked to save."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", *flags]
    return _run("redis", command, port, PING)


def memcached() -> Running:
    port = free_port()
    command = ["memcached", "-p", str(port), "-U", "0", "-l", "127.0.0.1", "-c", "2000"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command += ["-u", "root"]  # it does not run as root unless told so
    return _run("memcached", command, port, b"version\r\n")


def echo() -> Running:
    return _run_python("echo", "serve_echo")


def fakeredis() -> Running:
    return _run_python("fakeredis", "serve_fakeredis")


def have_program(name: str) -> bool:
    return shutil.which(name) is not None


def have_package(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def redis_if_there(*flags: str) -> dict[str, Starter]:
    """Return how to start Redis, by name; nothing if it is not installed."""
    return {"redis": lambda: redis(*flags)} if have_program("redis-server") else {}


@contextlib.contextmanager
def running(starters: dict[str, Starter]) -> Iterator[dict[str, Server]]:
    """Run all these servers at once."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(start()) for name, start in starters.items()}


@contextlib.contextmanager
def _run(name: str, command: list[str], port: int, hello: bytes) -> Iterator[Server]:
    environment = {key: text for key, text in os.environ.items() if not key.startswith("KVDB_")}
    environment["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            if not _answers(port, hello, process):
                log.seek(0)
                said = log.read().decode(errors="replace")
                raise RuntimeError(f"{name} did not start; it said:\n{said}")
            yield Server(name, port, process.pid)
        finally:
            process.kill()
            process.wait()


def _run_python(name: str, function: str) -> Running:
    port = free_port()
    code = f"from tests.bench.servers import {function}; {function}({port})"
    return _run(name, [sys.executable, "-c", code], port, PING)


def _answers(port: int, hello: bytes, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers `hello`; False if it ends or takes too long."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), _PATIENCE) as connection,
        ):
            connection.sendall(hello)
            if not connection.recv(1000).startswith(b"-"):  # else it is still loading
                return True
        time.sleep(0.001)
    return False


def allow_open_files(number: int) -> None:
    """Let this process, and the servers it starts, have so many sockets, where they may."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port() -> int:
    """Return a port that is free now.

    It lies below those that systems hand out by themselves: whoever connects to one of those
    again and again until a server is there may end up connected with himself.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


# --- servers of Python's ------------------------------------------------------------------


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := self.request.recv(65536):
            self.request.sendall(data)


def serve_echo(port: int) -> None:
    """Answer everything with itself, for ever."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), _Echo) as server:
        server.daemon_threads = True
        server.serve_forever()


def serve_fakeredis(port: int) -> None:
    """Run the TCP server that comes with fakeredis, for ever."""
    from fakeredis import TcpFakeServer

    TcpFakeServer(("127.0.0.1", port)).serve_forever()
