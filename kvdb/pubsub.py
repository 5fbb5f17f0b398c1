"""Publish/subscribe: who listens to what, and how a message reaches all of them.

What is promised of the order: all subscribers of a channel get its messages in the same order,
whoever publishes them; those of one publisher in the order in which it has published them. The
confirmation of a subscription comes before its first message, and no message comes after the
confirmation of its end.

The hub knows nothing of bytes: whoever subscribes brings a form, which puts a message into them.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from kvdb.errors import CommandError
from kvdb.glob import compile_glob
from kvdb.replies import Push

Form = Callable[[Push, int], bytes]
"""How a dialect puts into bytes what nobody has asked for; it is given the version of RESP, too."""

NAME_BYTES: Final = 300
"""What a subscription takes, about, beside the channel's name."""

ALLOWED: Final = frozenset((
    "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE", "PING",
    "QUIT", "RESET",
))  # fmt: skip
"""What a subscriber may send in RESP2, where a reply cannot be told from a message."""


def refuse_while_subscribed(name: str) -> CommandError:
    """Return the refusal of a command, by its wire name, that is not among them."""
    return CommandError(
        f"ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / "
        "RESET are allowed in this context"
    )


class Kind(enum.Enum):
    """What can be subscribed to. The value is the letter before the names of its commands."""

    CHANNEL = ""
    PATTERN = "p"
    SHARD = "s"


class Subscriptions:
    """What one client is subscribed to, in the order in which it has asked for it.

    The hub's lock guards it; others may look how many there are.
    """

    __slots__ = ("bytes", "channels", "patterns", "shards")

    def __init__(self) -> None:
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self.shards: dict[bytes, None] = {}
        self.bytes = 0
        """What they take, about."""

    def of(self, kind: Kind) -> dict[bytes, None]:
        """Return the names of one kind."""
        if kind is Kind.CHANNEL:
            return self.channels
        return self.patterns if kind is Kind.PATTERN else self.shards

    def count(self, kind: Kind) -> int:
        """Return the number that a confirmation tells: as in Redis, shards are counted apart."""
        if kind is Kind.SHARD:
            return len(self.shards)
        return len(self.channels) + len(self.patterns)


class Subscriber(Protocol):
    """What the hub has to know of a client. A `Session` is one."""

    push: Callable[[bytes], None]
    """Brings it bytes. It must not wait, and may be called by any thread."""
    version: int
    """Of RESP."""
    subscriptions: Subscriptions | None
    """None: it is subscribed to nothing. Only the hub changes it."""


class Hub:
    """Who listens to what.

    `_lock` guards all of it, the clients' `Subscriptions` included. It is held while a message is
    handed out, which is what keeps them in order; to push takes the locks of the connection and
    of its event loop under it, for a moment. Whoever holds the store's lock may take this one,
    never the other way round.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[Kind, dict[bytes, dict[Subscriber, Form]]] = {
            kind: {} for kind in Kind
        }
        self._matchers: dict[bytes, Callable[[bytes], object]] = {}  # for each pattern in use
        self.clients = 0
        """How many clients are subscribed to anything."""

    # --- subscribing ---------------------------------------------------------------------

    def subscribe(
        self, who: Subscriber, kind: Kind, names: Iterable[bytes], form: Form
    ) -> list[Push]:
        """Have a client get what is published under these names; return the confirmations.

        One that is subscribed already gets its messages in this form from now on.
        Raises CommandError, before anything is done, if a name cannot be a pattern.
        """
        names = list(names)
        if kind is Kind.PATTERN:
            matchers = {name: compile_glob(name) for name in names}
        word = f"{kind.value}subscribe".encode()
        confirmations = []
        with self._lock:
            if kind is Kind.PATTERN:
                self._matchers |= matchers
            mine = who.subscriptions
            if mine is None:
                mine = who.subscriptions = Subscriptions()
                self.clients += 1
            chosen, listeners = mine.of(kind), self._listeners[kind]
            for name in names:
                if name not in chosen:
                    chosen[name] = None
                    mine.bytes += len(name) + NAME_BYTES
                listeners.setdefault(name, {})[who] = form
                confirmations.append(Push((word, name, mine.count(kind))))
        return confirmations

    def unsubscribe(self, who: Subscriber, kind: Kind, names: Iterable[bytes] = ()) -> list[Push]:
        """Take back subscriptions, all of the kind if none is named; return the confirmations."""
        word = f"{kind.value}unsubscribe".encode()
        with self._lock:
            mine = who.subscriptions or Subscriptions()
            confirmations = []
            for name in list(names) or list(mine.of(kind)):
                if name in mine.of(kind):
                    self._remove_locked(who, mine, kind, name)
                confirmations.append(Push((word, name, mine.count(kind))))
            self._note_end_locked(who)
        return confirmations or [Push((word, None, mine.count(kind)))]

    def leave(self, who: Subscriber) -> None:
        """Take back all that a client is subscribed to."""
        if who.subscriptions is None:
            return
        with self._lock:
            mine = who.subscriptions
            for kind in Kind:
                for name in list(mine.of(kind)):
                    self._remove_locked(who, mine, kind, name)
            self._note_end_locked(who)

    def _remove_locked(self, who: Subscriber, mine: Subscriptions, kind: Kind, name: bytes) -> None:
        del mine.of(kind)[name]
        mine.bytes -= len(name) + NAME_BYTES
        listeners = self._listeners[kind][name]
        del listeners[who]
        if not listeners:
            del self._listeners[kind][name]
            if kind is Kind.PATTERN:
                del self._matchers[name]

    def _note_end_locked(self, who: Subscriber) -> None:
        mine = who.subscriptions
        if mine is not None and not (mine.channels or mine.patterns or mine.shards):
            who.subscriptions = None
            self.clients -= 1

    # --- publishing ----------------------------------------------------------------------

    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message to all that listen to its channel, by name or by a pattern.

        Returns how many subscriptions got it; a client may have several that do.
        """
        with self._lock:
            receivers = self._listeners[Kind.CHANNEL].get(channel, {})
            count = len(receivers)
            if receivers:
                _hand_out(Push((b"message", channel, message)), receivers)
            if self._matchers:
                for pattern, matches in self._matchers.items():
                    if matches(channel):
                        receivers = self._listeners[Kind.PATTERN][pattern]
                        count += len(receivers)
                        _hand_out(Push((b"pmessage", pattern, channel, message)), receivers)
            return count

    def publish_to_shard(self, channel: bytes, message: bytes) -> int:
        """As publish(), to those that have subscribed with SSUBSCRIBE."""
        with self._lock:
            receivers = self._listeners[Kind.SHARD].get(channel, {})
            _hand_out(Push((b"smessage", channel, message)), receivers)
            return len(receivers)

    # --- looking -------------------------------------------------------------------------

    def names(self, kind: Kind) -> list[bytes]:
        """Return the names of this kind that have at least one subscriber."""
        with self._lock:
            return list(self._listeners[kind])

    def count(self, kind: Kind) -> int:
        """Return how many names of a kind anybody is subscribed to."""
        return len(self._listeners[kind])

    def count_subscribers(self, kind: Kind, name: bytes) -> int:
        """Return how many clients are subscribed to a name."""
        with self._lock:
            return len(self._listeners[kind].get(name, ()))

    def check(self) -> None:
        """Recount what is kept as a running figure; AssertionError where it differs."""
        with self._lock:
            clients: set[Subscriber] = set()
            for kind, names in self._listeners.items():
                for name, listeners in names.items():
                    assert listeners, f"nobody listens to {name!r}"
                    for who in listeners:
                        mine = who.subscriptions
                        assert mine is not None, "a client that is subscribed to nothing"
                        assert name in mine.of(kind), name
                        clients.add(who)
            assert len(clients) == self.clients, "clients"
            assert self._matchers.keys() == self._listeners[Kind.PATTERN].keys(), "patterns"


def _hand_out(push: Push, receivers: dict[Subscriber, Form]) -> None:
    """Push a message to all of these; its bytes are made once for each form, and shared."""
    made: dict[tuple[Form, int], bytes] = {}
    for who, form in receivers.items():
        version = who.version
        data = made.get((form, version))
        if data is None:
            data = made[form, version] = form(push, version)
        who.push(data)
