"""What a server without replicas answers to who asks for them."""

from __future__ import annotations

from collections.abc import Callable

from kvdb import errors
from kvdb.commands.arguments import integer, parse_integer
from kvdb.commands.info import keeps_journal
from kvdb.commands.pausing import milliseconds
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, NONE, command
from kvdb.commands.waiting import MustWait, TimedWait
from kvdb.errors import CommandError
from kvdb.replies import OK, Reply


@command("ROLE", "", NONE, "Say that this is a master without replicas.", group="server")
def role(session: Session) -> Reply:
    return [b"master", 0, []]


def _wait(session: Session, timeout: int, has_come: Callable[[], bool]) -> TimedWait | None:
    """Return what the session has waited for until now; have it wait, if it has not yet.

    Within a transaction nobody waits: None.
    """
    if session.in_exec:
        return None
    waiting = session.waiting
    if isinstance(waiting, TimedWait):
        waiting.check()
        return waiting
    raise MustWait(TimedWait(timeout / 1000 or None, session.instance.monotonic, has_come))


@command(
    "WAIT",
    "numreplicas timeout",
    NONE,
    "Return 0, for there are no replicas; if some are asked for, only when the timeout is over.",
    group="generic",
)
def wait(session: Session, replicas: bytes, timeout: bytes) -> Reply:
    number = integer(replicas)
    longest = milliseconds(timeout)
    if number > 0:
        _wait(session, longest, lambda: False)
    return 0


@command(
    "WAITAOF",
    "numlocal numreplicas timeout",
    NONE,
    "Wait until the journal, or so many replicas, have what was written.",
    group="generic",
)
def waitaof(session: Session, local: bytes, replicas: bytes, timeout: bytes) -> Reply:
    wants_disk = integer(local)
    if not 0 <= wants_disk <= 1:
        raise CommandError("ERR value is out of range, value must between 0 and 1")
    number = integer(replicas)
    if number < 0:
        raise CommandError("ERR value is out of range, must be positive")
    longest = milliseconds(timeout)
    persistence = session.instance.persistence
    journal = persistence if keeps_journal(session.instance) else None
    if wants_disk and journal is None:
        raise CommandError(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."
        )
    step = session.store.step

    def is_on_disk() -> bool:
        return journal is not None and journal.durable_step >= step

    if not number and (not wants_disk or is_on_disk()):
        return [int(is_on_disk()), 0]
    waiting = _wait(session, longest, lambda: not number and is_on_disk())
    # What was written before the request counts, not what others have written meanwhile.
    reached = is_on_disk() or (waiting is not None and not number and waiting.has_come())
    return [int(reached), 0]


@command(
    "REPLICAOF",
    "host port",
    ADMIN,
    "NO ONE: be a master, as always. Anything else is refused: there is no replication.",
    group="server",
    aliases=("SLAVEOF",),
)
def replicaof(session: Session, host: bytes, port: bytes) -> Reply:
    if host.upper() == b"NO" and port.upper() == b"ONE":
        return OK
    if not 0 <= (parse_integer(port) or -1) <= 65535:
        raise CommandError("ERR Invalid master port")
    raise CommandError("ERR this server cannot be a replica: there is no replication")


@command(
    "FAILOVER",
    "[ABORT]",
    ADMIN,
    "Refused: there are no replicas.",
    group="server",
    open_ended=True,
)
def failover(session: Session, *options: bytes) -> Reply:
    if [option.upper() for option in options] == [b"ABORT"]:
        raise CommandError("ERR No failover in progress.")
    if options and options[0].upper() not in (b"TO", b"TIMEOUT", b"FORCE"):
        raise CommandError(errors.SYNTAX)
    raise CommandError("ERR FAILOVER requires connected replicas.")
