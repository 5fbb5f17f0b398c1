"""How much memory a server takes: bytes per key, and whether the budget is kept.

What the system says of a process is asked of /proc; where there is none, these are left out.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.bench import servers
from tests.bench.apart import Apart, apart
from tests.bench.report import Scale, Table, has_proc
from tests.bench.servers import redis_if_there, running
from tests.bench.wire import bulk, connect, load, receive

MB = 1024 * 1024
BUDGET = 100  # MB
ALLOWANCE = 1.10  # of the budget, beside what an empty server takes
BESIDE = (
    64  # MB: what may be in memory beside entries (--max-client-mb), and the holes between them
)
LEAST_USED = 75.0  # percent of the budget
WRITERS = 4


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    """Return what a process takes of the memory now or, as VmHWM, what it took at most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(rf"^{field}:\s*(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def bytes_per_key(scale: Scale, table: Table) -> None:
    """A million keys of 16 bytes with values of 32: what each adds to the resident memory."""
    keys = scale.number(1_000_000)
    if not has_proc():
        return
    with running({"kvdb": servers.roomy_kvdb, **redis_if_there()}) as against:
        costs = {}
        for name, server in against.items():
            empty = resident_bytes(server.pid)
            apart(load, server.port, keys)
            costs[name] = (resident_bytes(server.pid) - empty) / keys
    table.add(f"16 + 32 bytes, {keys:,} keys", "B/key", costs)


# --- the promise --------------------------------------------------------------------------


def _uniform(low: int, high: int) -> Callable[[random.Random], int]:
    return lambda chance: chance.randint(low, high)


def _log_uniform(low: int, high: int) -> Callable[[random.Random], int]:
    """Each order of magnitude as often as the next."""
    return lambda chance: round(math.exp(chance.uniform(math.log(low), math.log(high))))


class Phase(NamedTuple):
    """So many writes of values of such sizes, to random keys."""

    sizes: str
    size: Callable[[random.Random], int]
    writes: int


# Each turns the budget over more than twice.
PHASES = (
    Phase("10 to 100 B", _uniform(10, 100), 800_000),
    Phase("0.5 to 5 kB", _uniform(500, 5_000), 130_000),
    Phase("20 to 300 kB", _uniform(20_000, 300_000), 2_500),
    Phase("10 B to 200 kB", _log_uniform(10, 200_000), 18_000),
    Phase("10 to 100 B again", _uniform(10, 100), 800_000),
)


def write_phase(port: int, phase: int, writes: int, seed: int) -> None:
    """Write values of one phase to random keys out of 400,000, about 64 kB at a time."""
    chance, size = random.Random(seed), PHASES[phase].size
    data = chance.randbytes(300_000)
    with connect(port) as connection:
        while writes:
            batch: list[bytes] = []
            length = 0
            while writes and length < 64 * 1024 and len(batch) < 100:
                value = data[: size(chance)]
                key = b"$10\r\nkey:%06d\r\n" % chance.randrange(400_000)
                batch.append(b"*3\r\n$3\r\nSET\r\n" + key + bulk(value))
                length += len(value)
                writes -= 1
            connection.sendall(b"".join(batch))
            receive(connection, len(b"+OK\r\n") * len(batch))


def memory_promise(_: Scale, table: Table) -> None:
    """The most that a server with a budget of 100 MB takes while the values' sizes shift.

    Promised: no more than 110 MB beside what the empty server takes and 64 MB that are not for
    entries, while the budget is used to 75 % at least. A quick run writes as much: it takes that to turn the budget over.
    """
    if not has_proc():
        return
    with servers.kvdb("--in-memory", "--max-mb", str(BUDGET)) as server:
        empty, shares = resident_bytes(server.pid) / MB, []
        for number, phase in enumerate(PHASES):
            writes = phase.writes // WRITERS
            writers = [
                Apart(write_phase, server.port, number, writes, seed) for seed in range(WRITERS)
            ]
            for writer in writers:
                writer.result()
            shares.append(100 * _used_memory(server.port) / (BUDGET * MB))
            table.add(f"{phase.sizes}: used", "%", {"kvdb": shares[-1]})
            table.add(f"{phase.sizes}: resident", "MB", {"kvdb": resident_bytes(server.pid) / MB})
        peak = resident_bytes(server.pid, "VmHWM") / MB
    allowed = ALLOWANCE * BUDGET + empty + BESIDE
    table.add("resident when empty", "MB", {"kvdb": empty})
    table.add("resident at most", "MB", {"kvdb": peak, "promised at most": allowed})
    table.add("used at least", "%", {"kvdb": min(shares), "promised at least": LEAST_USED})


def _used_memory(port: int) -> int:
    """Return the bytes that the server counts against its budget."""
    with connect(port) as connection:
        connection.sendall(b"*2\r\n$4\r\nINFO\r\n$6\r\nmemory\r\n")
        shown = b""
        while not (found := re.search(rb"used_memory:(\d+)\r\n", shown)):
            shown += connection.recv(65536)
    return int(found[1])
