"""One line about a client, as CLIENT LIST and ACL LOG have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kvdb.memory import CONNECTION_BYTES

if TYPE_CHECKING:
    from kvdb.commands.session import Session


class Unsent(Protocol):
    """What waits to be sent to a client."""

    size: int
    """Bytes."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes, with those that nobody has looked at yet."""

    @property
    def pieces(self) -> int:
        """In how many pieces."""


def describe(session: Session) -> str:
    """Return one line of CLIENT LIST, with Redis's field names."""
    now = session.instance.monotonic()
    # Read each attribute once: another thread may set it to None meanwhile.
    transaction, tracker = session.transaction, session.tracker
    subscribed, unsent = session.subscriptions, session.outgoing
    omem = unsent.size if unsent else 0
    fields = {
        "id": session.id,
        "addr": session.address,
        "laddr": session.local_address,
        "fd": -1,
        "name": session.name.decode("ascii", "replace"),
        "age": int(now - session.started_at),
        "idle": int(now - session.last_active),
        "flags": ("S" if session.is_replica else "")
        + ("O" if session in session.instance.overseer.monitors else "")
        + ("P" if subscribed else "")
        + ("x" if transaction else "")
        + ("t" if tracker else "")
        + ("R" if tracker and tracker.is_broken else "")
        + ("B" if tracker and tracker.mode.broadcast else "")
        + ("b" if session.waiting else "")
        + ("e" if session.no_evict else "")
        + ("T" if session.no_touch else "")
        or "N",
        "db": session.db,
        "sub": len(subscribed.channels) if subscribed else 0,
        "psub": len(subscribed.patterns) if subscribed else 0,
        "ssub": len(subscribed.shards) if subscribed else 0,
        "multi": len(transaction.queue) if transaction else -1,
        "watch": len(session.watched),
        "qbuf": 0,
        "qbuf-free": 0,
        "argv-mem": 0,
        "multi-mem": transaction.bytes if transaction else 0,
        "rbs": 0,
        "rbp": 0,
        "obl": 0,
        "oll": unsent.pieces if unsent else 0,
        "omem": omem,
        "tot-mem": CONNECTION_BYTES + max(session.held, omem),
        "events": "r",
        "cmd": session.last_command,
        "user": session.user.name.decode("utf-8", "replace"),
        "redir": tracker.mode.redirect if tracker else -1,
        "resp": session.version,
        "lib-name": session.library_name.decode("ascii", "replace"),
        "lib-ver": session.library_version.decode("ascii", "replace"),
        "tot-net-in": session.received,
        "tot-net-out": session.sent,
        "tot-cmds": session.commands,
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())
