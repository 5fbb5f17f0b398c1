"""Clients that wait: CLIENT PAUSE, UNPAUSE and UNBLOCK."""

from __future__ import annotations

from kvdb.commands.arguments import INT64_MAX, integer
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, command
from kvdb.commands.waiting import TimedWait
from kvdb.errors import CommandError
from kvdb.pause import Held
from kvdb.replies import OK, Reply


def milliseconds(text: bytes) -> int:
    """Return how long something may take, as Redis reads it."""
    number = integer(text, "ERR timeout is not an integer or out of range")
    if number < 0:
        raise CommandError("ERR timeout is negative")
    if number > INT64_MAX // 2:
        raise CommandError("ERR timeout is out of range")
    return number


@command(
    "CLIENT PAUSE",
    "timeout [WRITE | ALL]",
    ADMIN,
    "Have all requests wait for some milliseconds, or those that write.",
    group="connection",
    open_ended=True,
)
def client_pause(session: Session, timeout: bytes, *modes: bytes) -> Reply:
    if len(modes) > 1:
        raise CommandError(
            "ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP."
        )
    mode = modes[0].upper() if modes else b"ALL"
    if mode not in (b"WRITE", b"ALL"):
        raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
    held = Held.WRITES if mode == b"WRITE" else Held.ALL
    session.instance.overseer.begin_pause(held, milliseconds(timeout) / 1000)
    return OK


@command(
    "CLIENT UNPAUSE",
    "",
    ADMIN,
    "End a pause early; while all clients are paused, this one is, too.",
    group="connection",
)
def client_unpause(session: Session) -> Reply:
    session.instance.overseer.end_pause()
    return OK


@command(
    "CLIENT UNBLOCK",
    "client-id [TIMEOUT | ERROR]",
    ADMIN,
    "End the WAIT or WAITAOF of another connection, as if its time had run out, or with an error.",
    group="connection",
)
def client_unblock(session: Session, number: bytes, *reasons: bytes) -> Reply:
    client_id = integer(number)
    reason = reasons[0].upper() if reasons else b"TIMEOUT"
    if reason not in (b"TIMEOUT", b"ERROR"):
        raise CommandError("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    client = session.instance.session(client_id)
    waiting = client.waiting if client else None
    if not isinstance(waiting, TimedWait):
        return 0
    waiting.end(with_error=reason == b"ERROR")
    return 1
