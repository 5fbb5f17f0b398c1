"""Starts servers for the interoperability suites, and stops them whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 15.0


class ServerFailed(Exception):
    """A server did not start, did not stop or logged a traceback; the text holds its log."""


@dataclass
class Address:
    """Where a running server listens, and the folder that it works in."""

    host: str
    port: int
    folder: Path

    def connect(self, timeout: float = 10.0) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@dataclass
class RedisAddress(Address):
    """Where a Redis or a Valkey listens, and which one it is."""

    name: str  # "redis" or "valkey"
    version: tuple[int, ...]


@contextlib.contextmanager
def running_kvdb(*flags: str, password: str | None = None) -> Iterator[Address]:
    """Run `python -m kvdb` in a temporary folder, in memory unless the flags say otherwise."""
    with tempfile.TemporaryDirectory(prefix="kvdb-interop-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "kvdb", *(flags or ("--in-memory",))]
        if password is not None:
            (folder / "password").write_text(password + "\n", encoding="utf-8")
            command += ["--password-file", str(folder / "password")]
        with _running("kvdb", command, ["--port"], folder) as address:
            yield address


@contextlib.contextmanager
def running_redis(password: str | None = None) -> Iterator[RedisAddress]:
    """Run `redis-server`, or `valkey-server`, in a temporary folder, without persistence."""
    with tempfile.TemporaryDirectory(prefix="redis-interop-") as name:
        program = program_of_redis("redis-server")
        command = [program, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        command += ["--enable-debug-command", "local"]
        if password is not None:
            command += ["--requirepass", password]
        with _running(program, command, ["--port"], Path(name)) as address:
            yield _ask_which_it_is(address, password)


def program_of_redis(name: str) -> str:
    """Return the name of one of Redis's programs, or of Valkey's where only that is installed."""
    twin = name.replace("redis", "valkey")
    return twin if shutil.which(name) is None and shutil.which(twin) else name


def _ask_which_it_is(address: Address, password: str | None) -> RedisAddress:
    requests = f"AUTH {password}\r\n" if password is not None else ""
    with address.connect() as connection, connection.makefile("rb") as replies:
        connection.sendall(f"{requests}INFO server\r\nQUIT\r\n".encode())
        info = replies.read().decode()
    # Valkey has a redis_version, too: that of the Redis which it goes back to.
    for name in ("valkey", "redis"):
        if found := re.search(rf"^{name}_version:([\d.]+)", info, re.MULTILINE):
            version = tuple(int(part) for part in found[1].split("."))
            return RedisAddress(address.host, address.port, address.folder, name, version)
    raise ServerFailed(f"INFO does not tell which server it is of: {info!r}")


@contextlib.contextmanager
def running_kvdb_for_memcached(*flags: str, password: str | None = None) -> Iterator[Address]:
    """Run kvdb in memory with its memcached port open; the address is that port's."""
    port = free_port()
    flags = ("--in-memory", "--memcached-port", str(port), *flags)
    with running_kvdb(*flags, password=password) as main:
        yield Address(main.host, port, main.folder)


@contextlib.contextmanager
def running_memcached() -> Iterator[Address]:
    """Run `memcached` with values of up to 16 MB, as kvdb takes them."""
    with tempfile.TemporaryDirectory(prefix="memcached-interop-") as name:
        command = ["memcached", "-l", "127.0.0.1", "-U", "0", "-I", "16m", "-m", "64"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command += ["-u", "root"]  # it will not run as root unless told so
        with _running("memcached", command, ["-p"], Path(name)) as address:
            yield address


@contextlib.contextmanager
def _running(
    name: str, command: Sequence[str], port_flag: Sequence[str], folder: Path
) -> Iterator[Address]:
    address = Address("127.0.0.1", free_port(), folder)
    log_path = folder / "server.log"
    inherited = {name: value for name, value in os.environ.items() if name[:5] != "KVDB_"}
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [*command, *port_flag, str(address.port)],
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def failed(what: str) -> ServerFailed:
        text = log_path.read_text(encoding="utf-8", errors="replace")
        return ServerFailed(f"{name} {what}; its log:\n{text[-10_000:]}")

    try:
        _wait_until_it_answers(process, address, failed)
        yield address
        if process.poll() is not None:
            raise failed(f"ended by itself with exit code {process.returncode}")
        process.terminate()
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise failed(f"did not stop within {STOP_SECONDS:g} s of SIGTERM") from None
        if code != 0:
            raise failed(f"stopped with exit code {code}")
        if b"Traceback (most recent call last)" in log_path.read_bytes():
            raise failed("logged a traceback")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return the number of a port on which nobody listens at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_until_it_answers(process: subprocess.Popen[bytes], address: Address, failed) -> None:  # type: ignore[no-untyped-def]
    """Connect and say PING until there is an answer; a refusal is one, memcached's included."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None:
            raise failed(f"did not start (exit code {process.returncode})")
        with contextlib.suppress(OSError), address.connect(timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(100).startswith((b"+PONG", b"-NOAUTH", b"ERROR")):
                return
        if time.monotonic() > deadline:
            raise failed(f"did not answer within {START_SECONDS:g} s")
        time.sleep(0.01)  # the pause between two attempts, not a guess at how long it takes
