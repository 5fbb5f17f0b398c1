"""Client-side caching: who keeps copies of which keys, and has to be told when one has changed.

A client that tracks keeps what it reads, and drops it when it is told that it is not true any
more. All depends on the order. To have read a key and to be registered for it is one hold of the
store's lock, so whatever changes the key later finds the registration. And a message never
overtakes a reply that was made before it: the connection sends it behind that (see
`Connection._send_pushed`), so a client never keeps what it has been told to drop already.

Nobody who does not track pays for this: without a tracker, the store tells us nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Final, NamedTuple, Protocol, TypeVar

from kvdb.replies import Push
from kvdb.resp.encoding import encode_reply
from kvdb.store import Store
from kvdb.store.entry import split_key
from kvdb.store.feed import Change, Fact

_R = TypeVar("_R")

MAX_KEYS: Final = 1_000_000  # as in Redis

_SLICE: Final = 1_000  # keys forgotten under one hold of the lock
_KEY_BYTES: Final = 140  # what a tracked key takes beside its name: a bytes object, a slot
_ITEM_BYTES: Final = 100  # what each client beyond its first takes, about


# What clients are told, before the keys: a message as PUBLISH would send it, or a push.
_BEGIN: Final = {2: (b"message", b"__redis__:invalidate"), 3: (b"invalidate",)}


class Client(Protocol):
    """What has to be known of a client to tell it something. A `Session` is one."""

    tracker: Tracker | None
    """None: it does not track."""
    push: Callable[[bytes], None]
    version: int
    """Of RESP. In version 2 there is no telling what is no reply, but for a subscriber."""

    @property
    def subscriptions(self) -> object | None:
        """None: it is subscribed to nothing (see `kvdb.pubsub`)."""


class Mode(NamedTuple):
    """How a client wants to be told, as CLIENT TRACKING ON has said."""

    redirect: int = 0
    """Number of the client that is told instead; 0: itself."""
    broadcast: bool = False
    """About every key that begins with a prefix, whoever has read it."""
    opt_in: bool = False
    """Only about what is read in a request after CLIENT CACHING YES."""
    opt_out: bool = False
    """Not about what is read in a request after CLIENT CACHING NO."""
    no_loop: bool = False
    """Not about what it writes itself."""


class Tracker:
    """What is known of a client that tracks. Only its own session changes it, and the end."""

    __slots__ = ("_tracking", "caching", "client", "is_broken", "mode", "prefixes")

    def __init__(self, tracking: Tracking, client: Client, mode: Mode) -> None:
        self._tracking = tracking
        self.client: Client | None = client
        """None: it does not track any more. Keys may lead here still."""
        self.mode = mode
        self.prefixes: tuple[bytes, ...] = ()
        self.caching = False  # CLIENT CACHING was given for the request that follows
        self.is_broken = False  # the client that should have been told is gone

    @property
    def registers(self) -> bool:
        """Whether the keys that are read now are to be tracked."""
        mode = self.mode
        return not mode.broadcast and (self.caching if mode.opt_in else not self.caching)

    @property
    def only_listens(self) -> bool:
        """Whether it makes no difference what this client itself does."""
        return self.mode.broadcast and not self.mode.no_loop

    def carry_out(
        self, command: Callable[[], _R], read: Sequence[bytes], writes: bool, is_step: bool
    ) -> _R:
        """Call a command of this client that reads these keys, or writes some; return its reply.

        What is no step takes long, and must not be called under the store's lock. Then the keys
        are registered before it, and once more after it, if somebody has changed them meanwhile:
        it can only be that the client is told to drop what it would not have had to.
        """
        if not ((read and self.registers) or (writes and self.mode.no_loop)):
            return command()
        step = self._tracking.store.atomic()
        if not is_step:
            with step:
                self._tracking.end_call(self, read)
        with step if is_step else nullcontext():
            try:
                return command()
            finally:
                with step:
                    self._tracking.end_call(self, read)

    def end_request(self, name: bytes, queues: bool) -> None:
        """A request was carried out or, with `queues`, is part of a transaction to come.

        CLIENT CACHING is about the request that follows it, or about the whole transaction.
        """
        if self.caching and not queues:
            self.caching = name.upper() == b"CLIENT"


class _Prefix:
    """A prefix that somebody wants to be told about."""

    def __init__(self) -> None:
        self.trackers: list[Tracker] = []
        self.changed: dict[bytes, Tracker | None] = {}  # key -> who has written it last


class Tracking:
    """Who tracks what. The store's lock guards all of it.

    The change feed only has messages put aside; send() brings them to the clients, without the
    lock. Keys go by their names: as in Redis, a change in any database counts.
    """

    def __init__(self, store: Store, find: Callable[[int], Client | None]) -> None:
        """`find` returns a client by its number; it is called without the lock."""
        self.store, self._find = store, find
        self.max_keys = MAX_KEYS
        """Keys that are tracked one by one; beyond, some are forgotten. 0: no limit."""
        self.on_messages: Callable[[], None] = lambda: None
        """Called, under the store's lock, when send() has something to do."""
        self._trackers: set[Tracker] = set()
        self._holders: dict[bytes, Tracker | set[Tracker]] = {}  # key -> who has a copy
        self._items = 0  # how many copies there are
        self._name_bytes = 0
        self._prefixes: dict[bytes, _Prefix] = {}
        self._candidates: list[bytes] = []  # keys among which the next to be forgotten is chosen
        self._seen = 0  # how many facts of the step under way have been looked at
        self._messages: list[tuple[Tracker, bytes | None]] = []  # None: about all keys
        self._is_called = False  # on_messages() was, and send() has not been since

    # --- who tracks ----------------------------------------------------------------------

    def start(self, client: Client, mode: Mode, prefixes: Iterable[bytes] = ()) -> None:
        """Have a client told about changes from now on."""
        tracker = client.tracker = Tracker(self, client, mode)
        with self.store.atomic():
            if not self._trackers:
                self.store.add_listener(self._hear)
            self.change(tracker, mode, prefixes)
            self._trackers.add(tracker)

    def change(self, tracker: Tracker, mode: Mode, prefixes: Iterable[bytes] = ()) -> None:
        """Have it told in another way, and about more prefixes."""
        with self.store.atomic():
            self._look_at_facts(None)  # what was done before is none of their business
            tracker.mode, tracker.is_broken = mode, False
            added = [prefix for prefix in prefixes if prefix not in tracker.prefixes]
            tracker.prefixes = tuple(sorted((*tracker.prefixes, *added)))
            for prefix in added:
                self._prefixes.setdefault(prefix, _Prefix()).trackers.append(tracker)

    def stop(self, client: Client) -> None:
        """Tell a client nothing more, if it tracks."""
        tracker, client.tracker = client.tracker, None
        if tracker is None:
            return
        with self.store.atomic():
            tracker.client = None
            self._trackers.discard(tracker)
            for name in tracker.prefixes:
                prefix = self._prefixes[name]
                prefix.trackers.remove(tracker)
                if not prefix.trackers:
                    del self._prefixes[name]
            tracker.prefixes = ()
            if not self._trackers:
                self.store.remove_listener(self._hear)
                self._forget_all()

    # --- what clients do -----------------------------------------------------------------

    def end_call(self, tracker: Tracker, names: Iterable[bytes]) -> None:
        """Say that a client's command has ended, within the hold in which it was carried out.

        `names` are the keys that it has read. What it did itself is looked at before they are
        registered: the client knows the outcome of that already.
        """
        self._look_at_facts(tracker)
        if not tracker.registers:
            return
        holders = self._holders
        added = 0
        for name in names:
            there = holders.get(name)
            if there is None:
                holders[name] = tracker
                self._items += 1
                self._name_bytes += len(name)
                added += 1
            elif there is not tracker:
                self._add(name, there, tracker)
        if added and self.max_keys:
            self._forget_some(added + 100)

    def _add(self, name: bytes, there: Tracker | set[Tracker], tracker: Tracker) -> None:
        if isinstance(there, Tracker):
            there = self._holders[name] = {there}
        if tracker in there:
            return
        there.add(tracker)
        self._items += 1
        # Those that have gone are not searched for; where they are the most, they are noticed.
        if len(there) > 2 * len(self._trackers):
            self._items -= len(there)
            there &= self._trackers
            self._items += len(there)

    # --- what changes --------------------------------------------------------------------

    def _hear(self, step: int, facts: Sequence[Fact]) -> None:
        """Take the facts of a step. Called under the lock."""
        self._look_at_facts(None, facts)
        self._seen = 0

    def _look_at_facts(self, writer: Tracker | None, facts: Sequence[Fact] | None = None) -> None:
        """Find out whom the facts that are new concern; `writer` has made them, if one has."""
        if facts is None:
            facts = self.store.facts_under_way
        if len(facts) == self._seen:
            return
        for fact in islice(facts, self._seen, None):
            if not isinstance(fact, Change):
                self._forget_keys()
                for tracker in self._trackers:
                    self._post(tracker, None)
                continue
            name = split_key(fact.key)[1]
            for start, prefix in self._prefixes.items():
                if name.startswith(start):
                    prefix.changed[name] = writer
                    self._call()
            if name in self._holders:
                self._invalidate(name, writer)
        self._seen = len(facts)

    def _invalidate(self, name: bytes, writer: Tracker | None = None) -> None:
        """Forget who has a copy of this key, and have them told."""
        there = self._holders.pop(name)
        holders = (there,) if isinstance(there, Tracker) else there
        self._items -= len(holders)
        self._name_bytes -= len(name)
        for tracker in holders:
            mode = tracker.mode
            if tracker.client is not None and not (tracker is writer and mode.no_loop):
                self._post(tracker, name)

    def _post(self, tracker: Tracker, name: bytes | None) -> None:
        self._messages.append((tracker, name))
        self._call()

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self.on_messages()

    # --- what is told --------------------------------------------------------------------

    def send(self) -> None:
        """Bring clients what has been put aside for them; without the store's lock."""
        with self.store.atomic():
            messages, self._messages = self._messages, []
            broadcasts = []
            for prefix in self._prefixes.values():
                if prefix.changed:
                    broadcasts.append((prefix.trackers.copy(), prefix.changed))
                    prefix.changed = {}
            self._is_called = False
        for tracker, name in messages:
            self._tell(tracker, None if name is None else [name], {})
        for trackers, changed in broadcasts:
            names, made = sorted(changed), {}  # type: tuple[list[bytes], dict[int, bytes]]
            for tracker in trackers:
                if not tracker.mode.no_loop:
                    self._tell(tracker, names, made)
                elif others := [name for name in names if changed[name] is not tracker]:
                    self._tell(tracker, others, {})

    def _tell(self, tracker: Tracker, names: list[bytes] | None, made: dict[int, bytes]) -> None:
        """Send one message; `made` are those that say the same, by version of RESP."""
        client, redirect = tracker.client, tracker.mode.redirect
        if client is None:
            return
        if redirect:
            target = self._find(redirect)
            if target is None:
                tracker.is_broken = True
                if client.version > 2:
                    client.push(encode_reply(Push((b"tracking-redir-broken", redirect)), 3))
                return
            client = target
        version = client.version
        if version > 2 or (redirect and client.subscriptions is not None):
            if version not in made:
                made[version] = encode_reply(Push((*_BEGIN[version], names)), version)
            client.push(made[version])

    # --- how much is remembered ----------------------------------------------------------

    def set_max_keys(self, most: int) -> None:
        """Change the limit; what is beyond is forgotten, and its holders are told so."""
        self.max_keys = most
        while most and len(self._holders) > most:
            with self.store.atomic():
                self._forget_some(_SLICE)
            time.sleep(0)

    def _forget_some(self, at_most: int) -> None:
        """Have keys forgotten, chosen at random, until they are no more than there may be."""
        holders = self._holders
        excess = min(len(holders) - self.max_keys, at_most)
        while excess > 0:
            # All at once, so that nobody who stays within the limit has to keep a list.
            candidates = self._candidates = self._candidates or list(holders)
            place = random.randrange(len(candidates))
            candidates[place], candidates[-1] = candidates[-1], candidates[place]
            name = candidates.pop()
            if name in holders:
                self._invalidate(name)
                excess -= 1

    def _forget_keys(self) -> None:
        self._holders, self._items, self._name_bytes = {}, 0, 0
        self._candidates = []

    def _forget_all(self) -> None:
        self._forget_keys()
        self._messages = []

    @property
    def held_bytes(self) -> int:
        """What it keeps in memory, about."""
        keys = len(self._holders)
        return self._name_bytes + _KEY_BYTES * keys + _ITEM_BYTES * (self._items - keys)

    def figures(self) -> dict[str, int]:
        """Return what INFO tells: clients that track, keys, copies of keys, and prefixes."""
        return {
            "tracking_clients": len(self._trackers),
            "tracking_total_keys": len(self._holders),
            "tracking_total_items": self._items,
            "tracking_total_prefixes": len(self._prefixes),
        }

    def check(self) -> None:
        """Recount what is kept as a running figure; AssertionError where it differs."""
        with self.store.atomic():
            holders = self._holders.values()
            sizes = [1 if isinstance(each, Tracker) else len(each) for each in holders]
            assert self._items == sum(sizes), "copies"
            assert self._name_bytes == sum(map(len, self._holders)), "bytes of names"
            assert all(prefix.trackers for prefix in self._prefixes.values()), "nobody's prefix"
            assert not self._holders or self._trackers, "nobody's keys"
