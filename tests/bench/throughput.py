"""Requests per second on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from kvdb.resp.replies import encode_request
from tests.bench import servers
from tests.bench.apart import apart
from tests.bench.report import Scale, Table, medians
from tests.bench.servers import PING, Server, Starter, have_package, have_program, redis_if_there
from tests.bench.wire import VALUE, Work, all_of, bulk, connect, requests_per_second

KEYS = [b"key:%04d" % number for number in range(1024)]
IDLE = 1000


@dataclass(frozen=True)
class Case:
    """`clients` connections; each sends `depth` requests at a time and waits for the answers."""

    name: str
    work: Work
    clients: int
    depth: int = 1
    unit: str = "req/s"
    per_request: int = 1  # how many of the unit are in a request


def set_(value: bytes, keys: Sequence[bytes] = KEYS) -> Work:
    return Work([encode_request([b"SET", key, value]) for key in keys], b"+OK\r\n")


def get(value: bytes, keys: Sequence[bytes] = KEYS) -> Work:
    requests = [encode_request([b"GET", key]) for key in keys]
    return Work(requests, bulk(value), all_of(set_(value, keys)))


def incr() -> Work:
    # An answer grows with the counter's digits: they start where they will not gain one.
    before = all_of(set_(b"1000000000"))
    return Work([encode_request([b"INCR", key]) for key in KEYS], b":1000000001\r\n", before)


SMALL = {"GET": get(VALUE), "SET": set_(VALUE), "INCR": incr()}


def compare(cases: Iterable[Case], against: dict[str, Server], scale: Scale, table: Table) -> None:
    """Run each case on all servers in turn and add it to the table."""
    for case in cases:
        measures = {
            name: partial(
                apart,
                requests_per_second,
                server.port,
                _as_answered_by(server.name, case.work),
                case.clients,
                case.depth,
                scale.seconds,
            )
            for name, server in against.items()
        }
        rates = medians(measures, scale.rounds)
        table.add(case.name, case.unit, {n: r * case.per_request for n, r in rates.items()})


def _as_answered_by(name: str, work: Work) -> Work:
    """Return the work as it is with the servers that answer in ways of their own."""
    if name == "echo":
        return Work(work.requests, work.requests[0])
    if name == "fakeredis" and work.reply == bulk(VALUE):
        return work._replace(reply=b"+" + VALUE + b"\r\n")  # not what Redis answers
    return work


def _many(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"


# --- groups -------------------------------------------------------------------------------


def one_at_a_time(scale: Scale, table: Table) -> None:
    """GET, SET and INCR with values of 32 bytes, of 1, 10 and 50 clients."""
    usual = {"kvdb": servers.kvdb, **redis_if_there(), "echo": servers.echo}
    slow: dict[str, Starter] = {}
    if have_package("fakeredis"):
        slow["fakeredis"] = servers.fakeredis
    with servers.running(usual) as against:
        for clients in (1, 10, 50):
            cases = [Case(f"{name}, {_many(clients)}", SMALL[name], clients) for name in SMALL]
            with servers.running(slow if clients == 10 else {}) as further:
                compare(cases, {**against, **further}, scale, table)


def pipelined(scale: Scale, table: Table) -> None:
    """The same, 64 requests at a time."""
    cases = [Case(f"{name}, 8 clients, 64 deep", SMALL[name], 8, 64) for name in SMALL]
    with servers.running({"kvdb": servers.kvdb, **redis_if_there()}) as against:
        compare(cases, against, scale, table)


def many_keys(scale: Scale, table: Table) -> None:
    """MGET and MSET of 100 keys, in keys per second."""
    names = KEYS[:100]
    pairs = [word for name in names for word in (name, VALUE)]
    mset = Work([encode_request([b"MSET", *pairs])], b"+OK\r\n")
    values = b"*100\r\n" + 100 * bulk(VALUE)
    mget = Work([encode_request([b"MGET", *names])], values, all_of(mset))
    cases = [
        Case(f"{name} of 100 keys, 1 client", work, 1, unit="keys/s", per_request=100)
        for name, work in (("MGET", mget), ("MSET", mset))
    ]
    with servers.running({"kvdb": servers.kvdb, **redis_if_there()}) as against:
        compare(cases, against, scale, table)


def large_values(scale: Scale, table: Table) -> None:
    """GET and SET of 1 kB and of 100 kB."""
    keys = KEYS[:16]
    cases = [
        Case(f"{name} {size}, {_many(clients)}", work, clients)
        for size, value in (("1 kB", b"v" * 1_000), ("100 kB", b"v" * 100_000))
        for clients in (1, 10)
        for name, work in (("GET", get(value, keys)), ("SET", set_(value, keys)))
    ]
    with servers.running({"kvdb": servers.kvdb, **redis_if_there()}) as against:
        compare(cases, against, scale, table)


def memcached_port(scale: Scale, table: Table) -> None:
    """get and set in memcached's protocol, values of 32 bytes."""
    set_work = Work([b"set %s 0 0 32\r\n%s\r\n" % (key, VALUE) for key in KEYS], b"STORED\r\n")
    found = b"VALUE %s 0 32\r\n%s\r\nEND\r\n" % (KEYS[0], VALUE)
    get_work = Work([b"get %s\r\n" % key for key in KEYS], found, all_of(set_work))
    cases = [
        Case(f"memcached {name}, {_many(clients)}", work, clients)
        for clients in (1, 10, 50)
        for name, work in (("get", get_work), ("set", set_work))
    ]
    with ExitStack() as stack:
        port = servers.free_port()
        kvdb = stack.enter_context(servers.kvdb("--in-memory", "--memcached-port", str(port)))
        against = {"kvdb": replace(kvdb, port=port)}
        if have_program("memcached"):
            against["memcached"] = stack.enter_context(servers.memcached())
        compare(cases, against, scale, table)


def idle_connections(scale: Scale, table: Table) -> None:
    """GET of ten clients beside 1,000 connections that have asked once and are silent now."""
    with (
        servers.running(
            {"kvdb": servers.kvdb, "kvdb without idle": servers.kvdb, **redis_if_there()}
        ) as against,
        ExitStack() as idle,
    ):
        for name, server in against.items():
            for _ in range(0 if name == "kvdb without idle" else IDLE):
                connection = idle.enter_context(connect(server.port))
                connection.sendall(PING)
                connection.recv(100)
        case = Case(f"GET, 10 clients beside {IDLE:,} idle", SMALL["GET"], 10)
        compare([case], against, scale, table)
