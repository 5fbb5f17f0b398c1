"""SLOWLOG and MONITOR: which requests there are, and which of them took long."""

from __future__ import annotations

from kvdb.commands.arguments import parse_integer
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, command, container
from kvdb.errors import CommandError
from kvdb.replies import OK, Reply
from kvdb.resp.encoding import encode_reply

container("SLOWLOG", "Look at the requests that took long.", group="server")


@command(
    "SLOWLOG GET",
    "[count]",
    ADMIN,
    "Return the last requests that took long: 10, or so many, or all (-1).",
    group="server",
    open_ended=True,
)
def slowlog_get(session: Session, *counts: bytes) -> Reply:
    if len(counts) > 1:
        raise CommandError(
            "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP."
        )
    count = parse_integer(counts[0]) if counts else 10
    if count is None or count < -1:
        raise CommandError("ERR count should be greater than or equal to -1")
    return [
        [
            each.number,
            int(each.at),
            each.microseconds,
            each.words,
            each.address.encode(),
            each.name,
        ]
        for each in session.instance.overseer.slow_log.latest(None if count < 0 else count)
    ]


@command("SLOWLOG LEN", "", ADMIN, "Return how many requests the slow log has.", group="server")
def slowlog_len(session: Session) -> Reply:
    return len(session.instance.overseer.slow_log)


@command("SLOWLOG RESET", "", ADMIN, "Empty the slow log.", group="server")
def slowlog_reset(session: Session) -> Reply:
    session.instance.overseer.slow_log.reset()
    return OK


@command(
    "MONITOR",
    "",
    ADMIN,
    "Show every request from now on, whoever makes it; RESET ends it.",
    group="server",
)
def monitor(session: Session) -> Reply:
    if session.in_exec:
        raise CommandError("ERR MONITOR isn't allowed for DENY BLOCKING client")
    if session.form is not encode_reply:
        raise CommandError("ERR MONITOR shows its lines in RESP only")
    session.instance.overseer.add_monitor(session)
    return OK
