"""Two clients at once, made to meet at the worst place: whoever looks and then acts does both in one hold.

Nobody waits for luck. The store's lock is replaced by one that lets two threads in by turns: so a
command that takes the lock twice, once to look and once to act, is certain to have the other one
between. The outcome has to be one of the two that come of one command after the other.

That this would catch a command that was taken apart is tested too, with a store whose every
operation is in pieces.
"""

from __future__ import annotations

import contextlib
import re
import threading
import unittest
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import kvdb.commands  # noqa: F401  (fills the command table)
from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.config import Config
from kvdb.http.api import Api, Request
from kvdb.protocols import RequestLoop
from kvdb.protocols.haus import Haus
from kvdb.protocols.main_port import MainPort
from kvdb.protocols.memcached import Memcached
from kvdb.store import Store
from kvdb.store.entry import Entry, Key
from kvdb.store.scans import ScanIndex
from tests.store_case import contents
from tests.support import ManualClock

DEADLINE = 10.0  # seconds after which a thread that hangs is given up
SCHEDULES = ("ab", "abba", "abbbb", "ba", "baab", "baaaa")
"""Who is let in, over and over: by turns, and with all that one does between two steps of the other."""


# --- turns --------------------------------------------------------------------------------


class Turns:
    """Lets threads into the store in an order that is laid down. Who has ended is left out."""

    def __init__(self, schedule: str) -> None:
        self._schedule, self._place = schedule, 0
        self._running = set(schedule)
        self._changed = threading.Condition()

    def wait_for(self, name: str) -> None:
        """Wait until it is this thread's turn."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._whose() == name, DEADLINE):
                raise TimeoutError(f"it has never been {name}'s turn")

    def end(self) -> None:
        """End the turn of the thread that is in."""
        with self._changed:
            self._place += 1
            self._changed.notify_all()

    def leave(self, name: str) -> None:
        """Let the others go on without this one, which has ended."""
        with self._changed:
            self._running.discard(name)
            self._changed.notify_all()

    def _whose(self) -> str:
        while True:
            name = self._schedule[self._place % len(self._schedule)]
            if name in self._running:
                return name
            self._place += 1


class TurnLock:
    """The store's lock while a race is on: racing threads take it by turns, a hold each."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock  # re-entrant
        self.turns = Turns("-")
        self.racing: dict[int, str] = {}  # thread -> its name in the schedule

    def acquire(self) -> None:
        name = self.racing.get(threading.get_ident())
        if name and not self._lock._is_owned():
            self.turns.wait_for(name)
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()
        if threading.get_ident() in self.racing and not self._lock._is_owned():
            self.turns.end()

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()


class TornStore(Store):
    """A store as a careless one would be: it looks under one hold of its lock, and acts under another."""

    def atomic(self, **how: bool) -> Any:
        return contextlib.nullcontext()

    def get_many(self, keys: Iterable[Key]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def update(self, key: Key, change: Callable[[bytes | None], bytes], *cause: Any) -> bytes:
        entry = self.entry(key)
        value = change(entry.value if entry else None)
        _, expires_at, client_flags = entry or Entry(b"")
        self.set(key, value, expires_at=expires_at, client_flags=client_flags)
        return value

    def update_each(
        self, keys: Iterable[Key], change: Callable[[bytes | None], bytes], *cause: Any
    ) -> Any:
        return [self.update(key, change) for key in keys]

    def write_many(self, values: Mapping[Key, bytes | None], *deadlines: Any) -> None:
        for key, value in values.items():
            if value is None:
                super().delete(key)
            else:
                self.set(key, value)

    def delete(self, *keys: Key) -> int:
        there = [key for key in keys if self.exists(key)]
        for key in there:
            super().delete(key)
        return len(there)

    def rename(self, source: Key, destination: Key) -> bool:
        entry = self.entry(source)
        if entry is None:
            return False
        self.put_back([(destination, entry)])
        super().delete(source)
        return True

    def set_deadline(
        self, key: Key, expires_at: float | None, *, keep_version: bool = False
    ) -> bool:
        there = self.exists(key)
        super().set_deadline(key, expires_at, keep_version=keep_version)
        return there


# --- clients ------------------------------------------------------------------------------

Client = Callable[[str], Any]
"""Takes a request as it is written in the table below; returns the reply."""


def stream(dialect: type[RequestLoop], line_end: bytes = b"\n") -> Callable[[Instance], Client]:
    """Return what opens a connection; `|` stands for the line end within a request."""

    def connect(instance: Instance) -> Client:
        session = Session(instance)
        instance.admit(session)
        conversation = dialect(session)

        def ask(request: str) -> bytes:
            return conversation.receive(request.encode().replace(b"|", line_end) + line_end)

        return ask

    return connect


def http(instance: Instance) -> Client:
    api = Api(instance)

    def ask(request: str) -> int | tuple[int, bytes]:
        method, path, body = request.split(" ")
        response = api.respond(Request(method, path, body=body.encode()))
        return response.status if method != "GET" else (response.status, response.body)

    return ask


def database(number: int) -> Callable[[Instance], Client]:
    def connect(instance: Instance) -> Client:
        ask = RESP(instance)
        ask(f"SELECT {number}")
        return ask

    return connect


RESP = stream(MainPort, b"\r\n")
JSON = stream(MainPort)
MEMCACHED = stream(Memcached, b"\r\n")
HAUS = stream(Haus)


@dataclass(frozen=True)
class Race:
    """What two clients ask at the same time, `{me}` is one or two; and what both ask before.

    `{token}` is the memcached token of key k after that.
    """

    name: str
    connect: Callable[[Instance], Client]
    asks: str
    other: str = ""  # what the second one asks, if it is something else
    before: tuple[str, ...] = ()  # asked by somebody in the same dialect
    each: tuple[str, ...] = ()  # asked by each of the two, one after the other
    other_connect: Callable[[Instance], Client] | None = None  # the second one's dialect


def resp(asks: str, *before: str, other: str = "", each: tuple[str, ...] = ()) -> Race:
    return Race(f"RESP {asks}", RESP, asks, other, before, each)


def memcached(asks: str, *before: str, other: str = "") -> Race:
    return Race(f"memcached {asks}", MEMCACHED, asks, other, before)


def json_line(command: str, **arguments: str) -> str:
    named = ", ".join(f'"{name}": "{value}"' for name, value in arguments.items())
    return f'{{{{"command": "{command}", "args": {{{{{named}}}}}}}}}'


RUN = "*2|$4|INCR|$1|k|"

RACES = (
    # the main port, RESP and inline
    resp("SETNX k {me}"),
    resp("SET k {me} NX"),
    resp("SET k {me} NX GET"),
    resp("SET k {me} XX", "SET k 0", other="DEL k"),
    resp("SET k {me} GET", "SET k 0"),
    resp("SET k {me} KEEPTTL", "SET k 0 EX 10", other="DEL k"),
    resp("GETSET k {me}", "SET k 0"),
    resp("GETDEL k", "SET k 0"),
    resp("GETEX k PXAT 1", "SET k 0"),
    resp("GETEX k EX 10", "SET k 0", other="SET k 2"),
    resp("INCR k"),
    resp("INCR k", "SET k 5 EX 10", other="DEL k"),
    resp("DECR k", "SET k 5"),
    resp("INCRBY k {me}", "SET k 5"),
    resp("DECRBY k {me}"),
    resp("INCRBYFLOAT k 0.5"),
    resp("APPEND k {me}", "SET k 0"),
    resp("SETRANGE k {me} {me}{me}", "SET k 00000"),
    resp("MSETNX k {me} l {me}"),
    resp("MSET k {me} l {me}"),
    resp("RENAME k l", "SET k 0", other="SET k 1"),
    resp("RENAMENX {me} k", "MSET 1 one 2 two"),
    resp("RENAMENX k l", "SET k 0", other="DEL k"),
    resp("COPY {me} k", "MSET 1 one 2 two"),
    resp("COPY k l REPLACE", "MSET k 0 l 1", other="COPY l k REPLACE"),
    resp("MOVE k 3", "SET k 0"),
    resp("DEL k l", "MSET k 0 l 0"),
    resp("UNLINK k", "SET k 0"),
    resp("EXPIRE k 1{me} NX", "SET k 0"),
    resp("EXPIRE k 1{me} XX", "SET k 0 EX 99", other="PERSIST k"),
    resp("EXPIRE k 1{me} GT", "SET k 0 EX 5"),
    resp("EXPIRE k 1{me} LT", "SET k 0 EX 99"),
    resp("PEXPIREAT k 1 LT", "SET k 0"),
    resp("EXPIRE k -1", "SET k 0"),
    resp("PERSIST k", "SET k 0 EX 10"),
    resp("EXISTS k l", other="MSET k 1 l 1"),
    resp("TOUCH k l", other="MSET k 1 l 1"),
    resp("MGET k l", other="MSET k 1 l 1"),
    resp("EXEC", each=("WATCH k", "GET k", "MULTI", "SET k {me}")),
    resp("EXEC", each=("MULTI", "INCR k", "INCR l", "GET k")),
    Race("RESP runs of INCR", RESP, RUN * 4),  # at first, no more are taken together
    Race(
        "MOVE from two databases", RESP, "MOVE k 3", other_connect=database(1),
        before=("SET k 0", "SELECT 1", "SET k 1"),
    ),
    Race("COPY in a database", database(3), "COPY {me} k", before=("MSET 1 one 2 two",)),
    # the main port, JSON lines
    Race("JSON INCR", JSON, json_line("INCR", key="k")),
    Race("JSON DECR", JSON, json_line("DECR", key="k")),
    Race(
        "JSON COMMIT", JSON, json_line("COMMIT"),
        each=(
            json_line("START"), json_line("SET", key="k", value="{me}"),
            json_line("SET", key="l", value="{me}"),
        ),
    ),
    Race(
        "JSON COMMIT of what was read", JSON, json_line("COMMIT"),
        each=(
            json_line("START"), json_line("GET", key="k"),
            json_line("SET", key="k", value="{me}"), json_line("SET", key="l", value="{me}"),
        ),
    ),
    # memcached
    memcached("add k 0 0 1|{me}"),
    memcached("replace k 0 0 1|{me}", "set k 0 0 1|0", other="delete k"),
    memcached("append k 0 0 1|{me}", "set k 7 10 1|0"),
    memcached("prepend k 0 0 1|{me}", "set k 0 0 1|0"),
    memcached("cas k 0 0 1 {token}|{me}", "set k 0 0 1|0"),
    memcached("incr k {me}", "set k 0 0 1|0"),
    memcached("decr k {me}", "set k 0 0 1|9"),
    memcached("gat -1 k", "set k 0 0 1|0"),
    memcached("gats 10 k", "set k 0 0 1|0", other="delete k"),
    memcached("gets k", "set k 0 0 1|0", other="set k 7 0 3|new"),
    memcached("mg k c s", "set k 0 0 1|0", other="set k 7 0 3|new"),
    memcached("me k", "set k 0 0 1|0", other="set k 7 100 30|" + "n" * 30),
    memcached("touch k -1", "set k 0 0 1|0"),
    memcached("delete k", "set k 0 0 1|0"),
    memcached("ms k 1 ME|{me}"),
    memcached("ms k 1 MA N10|{me}"),
    memcached("ms k 1 MP|{me}", "set k 0 0 1|0"),
    memcached("ms k 1 MR|{me}", "set k 0 0 1|0", other="md k"),
    memcached("ms k 1 C{token}|{me}", "set k 0 0 1|0"),
    memcached("md k", "set k 0 0 1|0"),
    memcached("md k C{token}", "set k 0 0 1|0"),
    memcached("md k I C{token}", "set k 0 0 1|0"),
    memcached("ma k v", "set k 0 0 1|0"),
    memcached("ma k N0 J5 v"),
    memcached("ma k C{token} v", "set k 0 0 1|0"),
    memcached("mg k N30 v"),
    memcached("mg k R30 v", "set k 0 10 1|0"),
    memcached("mg k v", "set k 0 0 1|0", "md k I"),
    memcached("mg k v T-1", "set k 0 0 1|0"),
    # HTTP
    Race("HTTP PUT", http, "PUT /keys/k {me}"),
    Race("HTTP PUT and DELETE", http, "PUT /keys/k {me}", "DELETE /keys/k ", ("PUT /keys/k 0",)),
    Race("HTTP DELETE", http, "DELETE /keys/k ", before=("PUT /keys/k 0",)),
    # Haus
    Race("Haus DEL", HAUS, "DEL k", before=("PUT k 0",)),
    Race("Haus COMMIT", HAUS, "COMMIT", each=("START", "PUT k {me}", "PUT l {me}")),
    Race(
        "Haus COMMIT of what was read", HAUS, "COMMIT",
        before=("PUT k 0",), each=("START", "GET k", "PUT k {me}", "PUT l {me}"),
    ),
    Race(
        "Haus COMMIT with a deletion", HAUS, "COMMIT",
        before=("PUT k 0",), each=("START", "DEL k", "PUT l {me}", "PUT m {me}"),
    ),
    # two ports
    Race("add and SETNX", MEMCACHED, "add k 0 0 1|1", "SETNX k 2", other_connect=RESP),
    Race("PUT and SETNX", http, "PUT /keys/k 1", "SETNX k 2", other_connect=RESP),
    Race("incr and INCR", MEMCACHED, "incr k 1", "INCR k", ("set k 0 0 1|0",), other_connect=RESP),
    Race("get of many and MSET", MEMCACHED, "get k l", "MSET k 1 l 1", other_connect=RESP),
    Race(
        "cas and APPEND", MEMCACHED, "cas k 0 0 1 {token}|1", "APPEND k 2", ("set k 0 0 1|0",),
        other_connect=RESP,
    ),
    Race("JSON INCR and Haus PUT", JSON, json_line("INCR", key="k"), "PUT k 5", other_connect=HAUS),
)  # fmt: skip


# --- races --------------------------------------------------------------------------------

Outcome = tuple[Any, ...]
"""Both replies, and what the store holds then."""


class Course:
    """A server on which one race is run once."""

    def __init__(self, race: Race, store_kind: type[Store]) -> None:
        self.race = race
        self.store = store_kind(0, clock=ManualClock())
        self.lock = TurnLock(self.store._lock)
        self.store._lock = self.lock  # type: ignore[assignment]
        instance = Instance(self.store, Config(max_bytes=0), monotonic=ManualClock())
        somebody = race.connect(instance)
        for request in race.before:
            somebody(request)
        self.words = {"token": str(self.store.version(b"k"))}
        other_connect = race.other_connect or race.connect
        self.clients = {"a": race.connect(instance), "b": other_connect(instance)}
        for name, client in self.clients.items():
            for request in race.each:
                client(self.fill_in(request, name))

    def fill_in(self, request: str, name: str) -> str:
        return request.format(me={"a": "1", "b": "2"}[name], **self.words)

    def ask(self, name: str) -> Any:
        request = self.race.other if name == "b" and self.race.other else self.race.asks
        try:
            return self.clients[name](self.fill_in(request, name))
        except Exception as error:
            return repr(error)

    def outcome(self, replies: dict[str, Any]) -> Outcome:
        """Return what can be seen of the race, whatever numbers the tokens have by chance."""
        held = sorted(contents(self.store).items(), key=repr)
        seen = []
        for reply in (replies["a"], replies["b"]):
            for number in range(3):  # tokens that may have been given since
                if isinstance(reply, bytes):
                    token = b"%d" % (int(self.words["token"]) + number)
                    reply = reply.replace(token, b"token %d" % number)
            seen.append(reply)
        return *seen, tuple(held)

    def one_after_the_other(self, order: str) -> Outcome:
        return self.outcome({name: self.ask(name) for name in order})

    def at_once(self, schedule: str) -> Outcome:
        replies: dict[str, Any] = {}
        turns = self.lock.turns = Turns(schedule)

        def run(name: str) -> None:
            self.lock.racing[threading.get_ident()] = name
            try:
                replies[name] = self.ask(name)
            finally:
                turns.leave(name)

        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * DEADLINE)
        assert len(replies) == 2, "a thread hangs"
        self.lock.racing.clear()
        return self.outcome(replies)


class RaceTest(unittest.TestCase):
    def outcomes(self, race: Race, kind: type[Store] = Store) -> set[Outcome]:
        """Return how the race ends when both come at once, in every order of their steps."""
        outcomes = set()
        for schedule in SCHEDULES:
            course = Course(race, kind)
            outcomes.add(course.at_once(schedule))
            if kind is Store:
                course.store.check()
        return outcomes

    def expected(self, race: Race) -> set[Outcome]:
        """Return how it may end: as if one had come after the other."""
        return {Course(race, Store).one_after_the_other(order) for order in ("ab", "ba")}

    def test_two_at_once_end_as_if_one_had_come_after_the_other(self) -> None:
        for race in RACES:
            with self.subTest(race.name):
                expected = self.expected(race)
                self.assertLessEqual(self.outcomes(race), expected)

    def test_every_race_is_lost_where_looking_and_acting_are_two_steps(self) -> None:
        """Else the test above would hold whatever the commands do."""
        for race in RACES:
            with self.subTest(race.name), self.assertNoLogs("kvdb", "ERROR"):  # lost, and no crash
                self.assertFalse(self.outcomes(race, TornStore) <= self.expected(race))

    def test_there_is_something_to_win_in_every_race(self) -> None:
        for race in RACES:
            with self.subTest(race.name):
                self.assertEqual(len(self.expected(race)), 2)
                for order in ("ab", "ba"):
                    reply = Course(race, Store).one_after_the_other(order)["ab".index(order[0])]
                    self.assertNotIn("err", str(reply).lower())  # who comes first is not refused


class ScanTest(unittest.TestCase):
    """Building a scan's index takes long, and others go on: nobody waits for who waits for him."""

    def setUp(self) -> None:
        self.store = Store(0, clock=ManualClock())
        self.instance = Instance(self.store, Config(max_bytes=0), monotonic=ManualClock())
        self.names = {b"key %d" % number for number in range(100)}
        for name in self.names:
            self.store.set(name, b"v")
        self.builds: list[threading.Thread] = []
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        real = ScanIndex.build

        def build(index: ScanIndex, keys: list[Key]) -> None:
            self.builds.append(threading.current_thread())
            if not self.begun.is_set():  # only the first one is held
                self.begun.set()
                assert self.may_go_on.wait(DEADLINE)
            real(index, keys)

        self.enterContext(mock.patch.object(ScanIndex, "build", build))
        self.found: list[set[bytes]] = []
        self.threads: list[threading.Thread] = []

    def scan(self) -> None:
        self.found.append(self.names.intersection(self.store.scan(0, 1000)[1]))

    def scan_in_transaction(self) -> None:
        reply = RESP(self.instance)("MULTI|SCAN 0 COUNT 1000|SET new v|EXEC")
        self.found.append(set(re.findall(rb"key \d+", reply)))

    def start(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def assert_all_found(self) -> None:
        for thread in self.threads:
            thread.join(DEADLINE)
            self.assertFalse(thread.is_alive(), "it hangs")
        self.assertEqual(self.found, [self.names] * len(self.threads))
        self.store.check()

    def test_a_transaction_does_not_wait_for_an_index_that_another_one_builds(self) -> None:
        builder = self.start(self.scan)
        self.assertTrue(self.begun.wait(DEADLINE))
        transaction = self.start(self.scan_in_transaction)
        transaction.join(DEADLINE)
        self.assertFalse(transaction.is_alive(), "it waits for the other one, or for ever")
        self.assertTrue(builder.is_alive())
        self.may_go_on.set()
        self.assert_all_found()
        self.assertIn(b"new", self.store.scan(0, 1000)[1])  # though it came while that was built

    def test_of_two_at_once_one_builds_and_the_other_waits(self) -> None:
        builder = self.start(self.scan)
        self.assertTrue(self.begun.wait(DEADLINE))
        other = self.start(self.scan)
        other.join(0.05)
        self.assertTrue(other.is_alive())
        self.store.set(b"key 1", b"others go on")
        self.may_go_on.set()
        self.assert_all_found()
        self.assertEqual(self.builds, [builder])

    def test_many_of_both_kinds_come_to_an_end(self) -> None:
        self.may_go_on.set()
        for _ in range(4):
            self.start(self.scan)
            self.start(self.scan_in_transaction)
        self.assert_all_found()
