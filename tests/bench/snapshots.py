"""A million keys to disk and back, and the time that a start takes."""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.bench import servers
from tests.bench.apart import apart
from tests.bench.report import Scale, Table, medians
from tests.bench.servers import Running, Starter, redis_if_there
from tests.bench.wire import Exchange, ask, load

SAVE = Exchange(b"*1\r\n$4\r\nSAVE\r\n", b"+OK\r\n")


def start_seconds(start: Starter) -> float:
    """Return how long it takes from the start of the process to its first answer."""
    started = time.perf_counter()
    with start():
        return time.perf_counter() - started


def starts(scale: Scale, table: Table) -> None:
    """Start to first answer of an empty server."""
    starters = {"kvdb": servers.kvdb, **redis_if_there()}
    measures = {name: partial(start_seconds, start) for name, start in starters.items()}
    found = medians(measures, 2 * scale.rounds)
    table.add("empty start to first answer", "ms", {n: 1000 * s for n, s in found.items()})


def load_seconds(path: Path) -> float:
    """Read a snapshot into a store in this process."""
    from kvdb.persistence.snapshot_loading import load_snapshot
    from kvdb.store import Store

    store = Store(max_bytes=0)
    started = time.perf_counter()
    load_snapshot(path, store)
    return time.perf_counter() - started


def json_seconds(path: Path) -> float:
    """Read the same lines with json.loads and keep nothing."""
    started = time.perf_counter()
    with open(path, "rb") as file:
        for line in file:
            json.loads(line)
    return time.perf_counter() - started


def snapshot(scale: Scale, table: Table) -> None:
    """Save and load a million keys of 16 bytes with values of 32.

    A load seen from outside is a start to its first answer, less the start of an empty server.
    """
    keys = scale.number(1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kvdb.json"

        def kvdb() -> Running:
            return servers.roomy_kvdb(path)

        with kvdb() as server:
            apart(load, server.port, keys)
            save = medians({"kvdb": partial(save_seconds, server.port)}, scale.rounds)
        found = medians(
            {
                "load": partial(apart, load_seconds, path),
                "start": partial(start_seconds, kvdb),
                "empty start": partial(start_seconds, servers.kvdb),
                "json.loads": partial(apart, json_seconds, path),
            },
            scale.rounds,
        )
    _report(table, "save", keys, save)
    loads = {
        "load, in a process": found["load"],
        "load, seen from outside": found["start"] - found["empty start"],
    }
    for name, seconds in loads.items():
        _report(table, name, keys, {"kvdb": seconds, "json.loads alone": found["json.loads"]})


def save_seconds(port: int) -> float:
    """Return how long SAVE takes."""
    started = time.perf_counter()
    ask(port, SAVE)
    return time.perf_counter() - started


def _report(table: Table, what: str, keys: int, seconds: dict[str, float]) -> None:
    case = f"{what}, {keys:,} keys"
    table.add(case, "s", seconds)
    table.add(case, "keys/s", {name: keys / taken for name, taken in seconds.items()})
