"""How long a client waits for a GET while the server is busy with something else.

The prober asks one request at a time and runs in the main process, which does nothing else.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench import servers
from tests.bench.apart import Apart, apart
from tests.bench.report import Scale, Table
from tests.bench.servers import have_program, redis_if_there, running
from tests.bench.wire import connect, load, probe

SAVES = 3
_PATIENCE = 120.0  # seconds for one save


def within(seconds: float) -> Callable[[], bool]:
    """Return what tells whether so many seconds have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def quantiles(waits: list[float]) -> dict[str, float]:
    """Return the median, the 99th percentile and the worst."""
    ordered = sorted(waits)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[len(ordered) * 99 // 100],
        "worst": ordered[-1],
    }


# --- while it saves -----------------------------------------------------------------------


def while_saving(scale: Scale, table: Table) -> None:
    """GETs of one client while 500,000 keys are saved (BGSAVE), and before."""
    keys, found = scale.number(500_000), {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "kvdb.json"
        kvdb = stack.enter_context(servers.roomy_kvdb(file))
        found["kvdb"] = _idle_and_saving(kvdb.port, keys, file)
        if have_program("redis-server"):
            redis = stack.enter_context(servers.redis("--dir", str(folder)))
            found["redis"] = _idle_and_saving(redis.port, keys, folder / "dump.rdb")
    for kind in ("p50", "p99", "worst"):
        before = {name: idle[kind] for name, (idle, _) in found.items()}
        saving = {name: saving[kind] for name, (_, saving) in found.items()}
        table.add(f"GET before a save, {kind}", "ms", before)
        saving["kvdb before"] = before["kvdb"]
        table.add(f"GET while {keys:,} keys are saved, {kind}", "ms", saving)


def _idle_and_saving(port: int, keys: int, file: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return the quantiles of a client's waits before and during several saves."""
    apart(load, port, keys)
    idle = probe(port, keys, within(3))
    saving: list[float] = []
    for _ in range(SAVES):
        replaced = _when_replaced(file)
        _begin_save(port)
        saving += probe(port, keys, replaced)
    return quantiles(idle), quantiles(saving)


def _begin_save(port: int) -> None:
    """Ask for a save until it is begun: the one before may have an end to come yet."""
    with connect(port) as connection:
        while True:
            connection.sendall(b"*1\r\n$6\r\nBGSAVE\r\n")
            if connection.recv(4096).startswith(b"+Background saving"):
                return
            time.sleep(0.02)


def _when_replaced(file: Path) -> Callable[[], bool]:
    """Return what tells whether another file is in its place by now."""

    def version() -> tuple[int, int] | None:
        try:
            status = os.stat(file)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    before, too_late = version(), within(_PATIENCE)

    def is_replaced() -> bool:
        if too_late():
            raise TimeoutError(f"{file.name} was not saved")
        return version() != before

    return is_replaced


# --- while it grows and is emptied --------------------------------------------------------


def while_growing(scale: Scale, table: Table) -> None:
    """GETs of one client while another fills the store with a million keys, and empties it."""
    keys = scale.number(1_000_000)
    growing, flushing = {}, {}
    with running({"kvdb": servers.roomy_kvdb, **redis_if_there()}) as against:
        for name, server in against.items():
            loading = Apart(load, server.port, keys)
            growing[name] = quantiles(probe(server.port, keys, loading.is_done))
            loading.result()
            flushing[name] = quantiles(_flush_and_probe(server.port, keys))
    for kind in ("p50", "p99", "worst"):
        waits = {name: found[kind] for name, found in growing.items()}
        table.add(f"GET while growing to {keys:,}, {kind}", "ms", waits)
    waits = {name: found["worst"] for name, found in flushing.items()}
    table.add("GET during and after FLUSHALL, worst", "ms", waits)


def _flush_and_probe(port: int, keys: int) -> list[float]:
    """Return the waits from FLUSHALL on; what it empties may be freed after its answer."""
    with connect(port) as connection:
        connection.sendall(b"*1\r\n$8\r\nFLUSHALL\r\n")
        waits = probe(port, keys, within(2))
        connection.recv(4096)
    return waits
