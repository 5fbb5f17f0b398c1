"""Replication as its commands: who replicates us, and who waits for that."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from kvdb import errors
from kvdb.commands.arguments import integer, parse_integer
from kvdb.commands.following import follow, unfollow
from kvdb.commands.info import keeps_journal
from kvdb.commands.pausing import milliseconds
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, NONE, NOT_QUEUED, command
from kvdb.commands.waiting import MustWait, TimedWait
from kvdb.errors import CommandError
from kvdb.replication.primary import Replica
from kvdb.replies import NO_REPLY, OK, Reply, SimpleString
from kvdb.resp.encoding import encode_reply


@command(
    "ROLE", "", NONE, "Return who replicates us, or whom we replicate, and offsets.", group="server"
)
def role(session: Session) -> Reply:
    replication, standby = session.instance.replication, session.instance.standby
    if standby is not None:
        primary = standby.primary
        state = standby.state.encode()
        return [b"slave", primary.host.encode(), primary.port, state, standby.offset]
    replicas: list[Reply] = []
    for replica, offset, _ in replication.lags():
        if replica.state == "online":
            ip, port = replica.address
            replicas.append([ip.encode(), b"%d" % port, b"%d" % offset])
    return [b"master", replication.offset, replicas]


# --- what replicas ask for ----------------------------------------------------------------


@command(
    "REPLCONF",
    "[option value ...]",
    ADMIN,
    "What a replica tells of itself: where it listens, what it can do, how far it has come.",
    group="server",
    open_ended=True,
)
def replconf(session: Session, *options: bytes) -> Reply:
    if len(options) % 2:
        raise CommandError(errors.SYNTAX)
    replica = session.replica or Replica(session)
    for option, value in zip(options[::2], options[1::2], strict=True):
        match option.lower():
            case b"ack":
                if session.is_replica:
                    _acknowledge(session, options)
                return NO_REPLY
            case b"listening-port":
                replica.port = integer(value)
            case b"ip-address":
                if not re.fullmatch(rb"[0-9A-Za-z:.%_-]{0,255}", value):
                    raise CommandError("ERR REPLCONF ip-address is no address")
                replica.ip = value.decode("ascii")
            case b"capa":
                replica.takes_eof |= value.lower() == b"eof"
            case b"rdb-only":
                replica.rdb_only = integer(value) != 0
            case b"rdb-filter-only":
                if value:
                    raise CommandError(f"ERR Unsupported RDB filter: {_shown(value)}")
                replica.wants_data = False
            case b"version":
                pass
            case _:
                raise CommandError(f"ERR Unrecognized REPLCONF option: {_shown(option)}")
    session.replica = replica
    return OK


def _acknowledge(session: Session, options: tuple[bytes, ...]) -> None:
    """Note `ACK offset`, perhaps with `FACK offset`: how much of it is on the replica's disk."""
    said = {
        name.upper(): integer(value)
        for name, value in zip(options[::2], options[1::2], strict=True)
        if name.upper() in (b"ACK", b"FACK")
    }
    assert session.replica is not None
    session.instance.replication.acknowledge(
        session.replica, said.get(b"ACK", 0), said.get(b"FACK", 0)
    )


def _shown(text: bytes) -> str:
    return re.sub(r"[\r\n]", " ", text[:128].decode("utf-8", "replace"))


@command(
    "PSYNC",
    "replicationid offset",
    ADMIN,
    "Replicate this server: go on where the replica left off, or begin with everything.",
    group="server",
    open_ended=True,
)
def psync(session: Session, history: bytes, offset: bytes, *options: bytes) -> Reply:
    replication, replica = session.instance.replication, _as_replica(session)
    place = parse_integer(offset)
    if place is None:
        raise CommandError("ERR value is not an integer or out of range")
    if replication.resume(replica, history.decode("ascii", "replace"), place):
        return SimpleString(b"CONTINUE " + replication.id.encode())
    start = replication.begin(replica)
    return SimpleString(b"FULLRESYNC %b %d" % (replication.id.encode(), start))


@command("SYNC", "", ADMIN, "Replicate this server, beginning with everything.", group="server")
def sync(session: Session) -> Reply:
    replica = _as_replica(session)
    replica.acknowledges = False
    session.instance.replication.begin(replica)
    return NO_REPLY


def _as_replica(session: Session) -> Replica:
    """Return the session as a replica that has done with its handshake. Raises CommandError."""
    if session.in_exec or session.transaction is not None:
        raise CommandError("ERR Command not allowed inside a transaction")
    standby = session.instance.standby
    if standby is not None and standby.state != "connected":
        raise CommandError("NOMASTERLINK Can't SYNC while not connected with my master")
    if session.form is not encode_reply or session.version != 2:
        raise CommandError("ERR replication is for RESP2 only")
    replica = session.replica or Replica(session)
    if replica.state != "handshake":
        raise CommandError("ERR Replica is syncing already")
    session.replica = replica
    return replica


# --- who waits for replicas ---------------------------------------------------------------


@command(
    "WAIT",
    "numreplicas timeout",
    NONE,
    "Wait until so many replicas have what was written, or the timeout is over; return how many.",
    group="generic",
)
def wait(session: Session, replicas: bytes, timeout: bytes) -> Reply:
    if session.instance.standby is not None:
        raise CommandError(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 "
            "if a replica is configured to be writable (which is not the default) writes to "
            "replicas are just local and are not propagated."
        )
    number = integer(replicas)
    longest = milliseconds(timeout)
    return _replicas_reached(session, number, longest, session.instance.replication.reached)


def _replicas_reached(
    session: Session,
    number: int,
    longest: int,
    reached_by: Callable[[int], int],
    is_on_disk: Callable[[], bool] = lambda: True,
) -> int:
    """Return how many replicas have everything; once so many have, and it is on disk, or time is up."""
    replication = session.instance.replication
    waiting = session.waiting
    if isinstance(waiting, WaitForReplicas) and not session.in_exec:
        waiting.check()
        return reached_by(waiting.offset)
    offset = replication.request_acknowledgements() if number > 0 else replication.offset
    reached = reached_by(offset)
    if session.in_exec or (reached >= number and is_on_disk()):
        return reached

    def has_come() -> bool:
        return reached_by(offset) >= number and is_on_disk()

    wait = WaitForReplicas(longest / 1000 or None, session.instance.monotonic, has_come)
    wait.offset = offset
    raise MustWait(wait)


class WaitForReplicas(TimedWait):
    """The wait for replicas to have what was written up to an offset."""

    offset = 0


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
    if session.instance.standby is not None:
        raise CommandError(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to "
            "replicas are just local and are not propagated."
        )
    persistence = session.instance.persistence
    journal = persistence if keeps_journal(session.instance) else None
    if wants_disk and journal is None:
        raise CommandError(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."
        )
    step = session.store.step

    def is_on_disk() -> bool:
        return journal is not None and journal.durable_step >= step

    done = is_on_disk if wants_disk else lambda: True
    on_disks = partial(session.instance.replication.reached, on_disk=True)
    reached = _replicas_reached(session, number, longest, on_disks, done)
    # What was written before the request counts, not what others have written meanwhile.
    waiting = session.waiting
    has_come = isinstance(waiting, WaitForReplicas) and waiting.has_come()
    return [int(is_on_disk() or (bool(wants_disk) and has_come)), reached]


@command(
    "REPLICAOF",
    "host port",
    ADMIN | NOT_QUEUED,
    "Replicate another server, which gives up what is here; NO ONE: be a master again, with all of it.",
    group="server",
    aliases=("SLAVEOF",),
)
def replicaof(session: Session, host: bytes, port: bytes) -> Reply:
    if host.upper() == b"NO" and port.upper() == b"ONE":
        unfollow(session.instance)
        return OK
    number = parse_integer(port)
    if number is None or not 0 < number <= 65535:
        raise CommandError("ERR Invalid master port")
    if not host.strip():
        raise CommandError("ERR Invalid master host")
    where = host.decode("utf-8", "replace"), number
    standby = session.instance.standby
    if standby is not None and standby.primary[:2] == where:
        return SimpleString(b"OK Already connected to specified master")
    follow(session.instance, *where)
    return OK


@command(
    "FAILOVER",
    "[ABORT]",
    ADMIN,
    "Refused: CLIENT PAUSE, WAIT and REPLICAOF do it in steps that can be seen.",
    group="server",
    open_ended=True,
)
def failover(session: Session, *options: bytes) -> Reply:
    if [option.upper() for option in options] == [b"ABORT"]:
        raise CommandError("ERR No failover in progress.")
    if options and options[0].upper() not in (b"TO", b"TIMEOUT", b"FORCE"):
        raise CommandError(errors.SYNTAX)
    if session.instance.standby is not None:
        raise CommandError("ERR FAILOVER is not valid when server is a replica.")
    if not session.instance.replication.lags():
        raise CommandError("ERR FAILOVER requires connected replicas.")
    raise CommandError(
        "ERR FAILOVER is not here: CLIENT PAUSE, WAIT and REPLICAOF do it in steps that can be seen"
    )
