"""Commands about the server: saving, stopping, time."""

from __future__ import annotations

from kvdb import errors
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, NONE, NOT_QUEUED, command
from kvdb.errors import CommandError
from kvdb.persistence import Persistence, PersistenceError, SaveInProgress
from kvdb.replies import NO_REPLY, OK, Reply, SimpleString

NOT_SAVED = "ERR this server keeps its data in memory only (--in-memory)"


def _persistence(session: Session) -> Persistence:
    if session.instance.persistence is None:
        raise CommandError(NOT_SAVED)
    return session.instance.persistence


@command(
    "SAVE",
    "",
    ADMIN | NOT_QUEUED,
    "Write what is not on disk yet, and answer when it is; others are served meanwhile.",
    group="server",
)
def save(session: Session) -> Reply:
    try:
        _persistence(session).save()
    except SaveInProgress:
        raise CommandError("ERR Background save already in progress") from None
    except PersistenceError as error:
        raise CommandError(f"ERR {error}") from None
    return OK


@command(
    "BGSAVE",
    "[SCHEDULE]",
    ADMIN,
    "Write what is not on disk yet, in the background.",
    group="server",
)
def bgsave(session: Session, *schedule: bytes) -> Reply:
    if schedule and (len(schedule) > 1 or schedule[0].upper() != b"SCHEDULE"):
        raise CommandError(errors.SYNTAX)
    under_way = _persistence(session).in_progress
    if not _persistence(session).save_soon(schedule=bool(schedule)) and not schedule:
        raise CommandError("ERR Background save already in progress")
    text = (
        b"Background saving scheduled" if schedule and under_way else b"Background saving started"
    )
    return SimpleString(text)


@command(
    "LASTSAVE",
    "",
    NONE,
    "Return when everything was last on disk, in Unix seconds.",
    group="server",
)
def lastsave(session: Session) -> Reply:
    persistence = session.instance.persistence
    return int(persistence.last_save if persistence else session.instance.started_time)


@command(
    "TIME", "", NONE, "Return the server's clock: Unix seconds, and microseconds.", group="server"
)
def time(session: Session) -> Reply:
    seconds, microseconds = divmod(int(session.store.now() * 1_000_000), 1_000_000)
    return [b"%d" % seconds, b"%d" % microseconds]


@command(
    "SHUTDOWN",
    "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    ADMIN | NOT_QUEUED,
    "Save and stop the server; NOSAVE: without saving; FORCE: even if saving fails.",
    group="server",
)
def shutdown(session: Session, *options: bytes) -> Reply:
    asked = {option.upper() for option in options}
    if not asked <= {b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"} or asked >= {
        b"NOSAVE",
        b"SAVE",
    }:
        raise CommandError(errors.SYNTAX)
    if b"ABORT" in asked:
        if len(asked) > 1:
            raise CommandError(errors.SYNTAX)
        raise CommandError("ERR No shutdown in progress.")
    wanted = b"SAVE" in asked or (
        b"NOSAVE" not in asked and session.instance.persistence is not None
    )
    if session.instance.loading:  # what has been loaded of it must not take the file's place
        wanted = False
    if wanted:
        try:
            _persistence(session).save_at_end()
        except PersistenceError as error:
            if b"FORCE" not in asked:  # what cannot be saved is not given up unasked
                raise CommandError(f"ERR {error}") from None
            wanted = False
    session.instance.request_stop(wanted)
    session.closing = True
    return NO_REPLY


def _refuse_cluster(session: Session, *ignored: bytes) -> Reply:
    raise CommandError(errors.NO_CLUSTER)


# Tools ask before they begin; an unknown command ends some of them.
for _name, _usage, _summary in (
    ("CLUSTER", "subcommand [argument ...]", "Refused: this is no cluster."),
    ("ASKING", "", "Refused: this is no cluster."),
    ("READONLY", "", "Refused: this is no cluster."),
    ("READWRITE", "", "Refused: this is no cluster."),
):
    command(_name, _usage, NONE, _summary, group="server")(_refuse_cluster)
