"""What a Python program sees: calls per second through a client library, one connection."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import kvdb
from tests.bench import servers
from tests.bench.apart import apart
from tests.bench.report import Scale, Table, medians
from tests.bench.servers import have_package, have_program
from tests.bench.wire import VALUE

OpenClient = Callable[[Any], Any]
"""Makes an object with get(key) and set(key, value) of a port or, for DiskCache, a folder.

All take and return bytes: none pays for a conversion that another spares itself.
"""


def open_bundled(port: int) -> Any:
    return kvdb.Client("127.0.0.1", port, serializer=kvdb.BYTES)


def open_redis_py(port: int) -> Any:
    import redis

    return redis.Redis("127.0.0.1", port)


def open_pymemcache(port: int) -> Any:
    from pymemcache import Client

    # Like the others it waits for the answer to a write, and sends at once.
    return Client(("127.0.0.1", port), default_noreply=False, no_delay=True)


def open_diskcache(folder: str) -> Any:
    from diskcache import Cache

    return Cache(folder)


def calls_per_second(open_client: OpenClient, where: Any, operation: str, seconds: float) -> float:
    """Call `get` or `set` again and again, from one thread."""
    client = open_client(where)
    client.set("key", VALUE)
    if client.get("key") != VALUE:
        raise RuntimeError(f"{open_client.__name__}: the value did not come back")
    calls: dict[str, Callable[[], object]] = {
        "get": partial(client.get, "key"),
        "set": partial(client.set, "key", VALUE),
    }
    call, count = calls[operation], 0
    clock, started = time.perf_counter, time.perf_counter()
    while (now := clock()) < started + seconds:
        call()
        count += 1
    return count / (now - started)


def python_clients(scale: Scale, table: Table) -> None:
    """The bundled client with kvdb against the pairs that a program might use instead."""
    with ExitStack() as stack:
        pairs = _start_pairs(stack)
        for operation in ("get", "set"):
            measures = {
                name: partial(apart, calls_per_second, open_client, where, operation, scale.seconds)
                for name, (open_client, where) in pairs.items()
            }
            rates = medians(measures, scale.rounds)
            table.add(f"bundled client: {operation}", "calls/s", rates)


def _start_pairs(stack: ExitStack) -> dict[str, tuple[OpenClient, int | str]]:
    """Start what there is; return each client library, and where its server is."""
    memcached_port = servers.free_port()
    server = servers.kvdb("--in-memory", "--memcached-port", str(memcached_port))
    port = stack.enter_context(server).port
    pairs: dict[str, tuple[OpenClient, int | str]] = {"kvdb": (open_bundled, port)}
    if have_package("redis"):
        pairs["redis-py + kvdb"] = (open_redis_py, port)
        if have_program("redis-server"):
            redis = stack.enter_context(servers.redis())
            pairs["redis-py + redis"] = (open_redis_py, redis.port)
    if have_package("pymemcache"):
        pairs["pymemcache + kvdb"] = (open_pymemcache, memcached_port)
        if have_program("memcached"):
            memcached = stack.enter_context(servers.memcached())
            pairs["pymemcache + memcached"] = (open_pymemcache, memcached.port)
    if have_package("diskcache"):
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        pairs["DiskCache"] = (open_diskcache, folder)
    return pairs
