"""CPU time of the server's process per request: steadier on a shared machine than a rate.

A fixed load, the servers in turn, case by case; the medians. `/proc/PID/stat` counts in steps of
10 ms, so each load takes a few hundred of them.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kvdb.resp.replies import encode_request
from tests.bench import servers
from tests.bench.report import Scale, Table, medians
from tests.bench.servers import Server, Starter, have_program, redis_if_there, running
from tests.bench.wire import VALUE, bulk, connect, receive

_KEYS = 1000
_LOAD = 40_000  # requests per case, server and round
_DEEP = 64


class Case(NamedTuple):
    """What some clients send again and again: each a batch, then all wait for the answers."""

    name: str
    clients: int
    batches: Sequence[tuple[bytes, int]]  # and how long the answers are
    requests: int = 1  # in a batch

    def load(self, port: int, total: int) -> int:
        """Send about so many requests; return how many it were."""
        connections = [connect(port) for _ in range(self.clients)]
        rounds = max(1, total // (self.clients * self.requests))
        try:
            for number in range(rounds):
                batch, length = self.batches[number % len(self.batches)]
                for connection in connections:
                    connection.sendall(batch)
                for connection in connections:
                    receive(connection, length)
        finally:
            for connection in connections:
                connection.close()
        return rounds * self.clients * self.requests


_GOT = len(bulk(VALUE))
_ONE_NAMES = [b"key:%06d" % number for number in range(_KEYS)]
_GETS = [(encode_request([b"GET", name]), _GOT) for name in _ONE_NAMES]
_SETS = [(encode_request([b"SET", name, VALUE]), 5) for name in _ONE_NAMES]
_EXPIRING = [(encode_request([b"SET", name, VALUE, b"EX", b"100"]), 5) for name in _ONE_NAMES]
_PING = (encode_request([b"PING"]), 7)


def _deep(requests: Sequence[tuple[bytes, int]]) -> tuple[bytes, int]:
    return b"".join(request for request, _ in requests), sum(length for _, length in requests)


def _mixed() -> list[tuple[bytes, int]]:
    """GET, SET, SET EX and INCR in turn."""
    mixed = []
    for number in range(_DEEP // 4):
        name = b"key:%06d" % number
        mixed += [
            (encode_request([b"GET", name]), _GOT),
            (encode_request([b"SET", name, VALUE]), 5),
            (encode_request([b"SETEX", name, b"100", VALUE]), 5),
            (encode_request([b"INCR", b"count"]), 16),
        ]
    return mixed


CASES = (
    Case("GET, 1 client", 1, _GETS),
    Case("SET, 1 client", 1, _SETS),
    Case("SET EX, 1 client", 1, _EXPIRING),
    Case("GET, 50 clients", 50, _GETS),
    Case("GET and PING in turn, 8 clients", 8, [_GETS[0], _PING]),
    Case("64 deep, GET", 4, [_deep(_GETS[:_DEEP])], _DEEP),
    Case("64 deep, SET", 4, [_deep(_SETS[:_DEEP])], _DEEP),
    Case("64 deep, GET SET SETEX INCR", 4, [_deep(_mixed())], _DEEP),
)

_MC_SET = [(b"set %s 0 0 %d\r\n%s\r\n" % (name, len(VALUE), VALUE), 8) for name in _ONE_NAMES]
_MC_GET = [
    (b"get %s\r\n" % name, len(b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (name, len(VALUE), VALUE)))
    for name in _ONE_NAMES
]
MEMCACHED_CASES = (
    Case("memcached set, 1 client", 1, _MC_SET),
    Case("memcached get, 1 client", 1, _MC_GET),
)


def cpu_per_request(scale: Scale, table: Table) -> None:
    """Everything that users send, against Redis and memcached; and with a listener attached."""
    if not Path("/proc/self/stat").exists():
        return
    starters: dict[str, Starter] = {"kvdb": servers.roomy_kvdb} | redis_if_there()
    with running(starters) as there:
        _fill(there)
        for case in CASES:
            _measure(case, there, scale, table)
    listened = {"kvdb": servers.listened_kvdb, "kvdb without listener": servers.roomy_kvdb}
    with running(listened) as there:
        _fill(there)
        for case in CASES:
            if "SET" in case.name:
                _measure(case._replace(name=f"{case.name}, listener"), there, scale, table)
    with running({"kvdb": servers.memcached_kvdb} | memcached_if_there()) as there:
        for case in MEMCACHED_CASES:
            _measure(case, there, scale, table)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.sqlite"
        starters = {"kvdb": partial(servers.kvdb, str(data), "--fsync", "always")}
        log = ("--dir", folder, "--appendonly", "yes", "--appendfsync", "always")
        with running(starters | redis_if_there(*log)) as there:
            for clients in (1, 50):
                case = Case(f"SET, --fsync always, {clients} clients", clients, _SETS)
                _measure(case, there, scale, table, share=0.05 if clients == 1 else 0.3)


def memcached_if_there() -> dict[str, Starter]:
    return {"memcached": servers.memcached} if have_program("memcached") else {}


def _fill(there: dict[str, Server]) -> None:
    for server in there.values():
        Case("", 1, _SETS).load(server.port, _KEYS)
        # As many digits as it will have after all that is added.
        Case("", 1, [(encode_request([b"SET", b"count", b"%d" % 10**12]), 5)]).load(server.port, 1)


def _measure(
    case: Case, there: dict[str, Server], scale: Scale, table: Table, share: float = 1.0
) -> None:
    total = int(scale.number(_LOAD) * share * (10 if case.requests > 1 else 1))
    measures = {name: partial(_cpu, case, server, total) for name, server in there.items()}
    table.add(case.name, "us", medians(measures, scale.rounds))


def _cpu(case: Case, server: Server, total: int) -> float:
    """Return microseconds of the server's CPU time per request."""
    before = _seconds(server.pid)
    requests = case.load(server.port, total)
    return (_seconds(server.pid) - before) / requests * 1e6


def _seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK") if sys.platform != "win32" else 100
    return (int(fields[11]) + int(fields[12])) / ticks
