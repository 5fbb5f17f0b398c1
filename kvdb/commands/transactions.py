"""MULTI, EXEC and what belongs to them."""

from __future__ import annotations

from kvdb import errors
from kvdb.commands.session import Session, internal_error
from kvdb.commands.table import ALL_KEYS, AT_ONCE, NONE, Command, command
from kvdb.commands.transaction import Transaction
from kvdb.errors import CommandError
from kvdb.replies import NIL_ARRAY, OK, Reply
from kvdb.store.entry import Key, split_key

WATCHED_BYTES = 300
"""What a watched key takes, about, beside its name."""

MAX_WATCHED = 10_000
"""Keys that one connection may watch: each takes memory that no budget counts."""


@command("MULTI", "", AT_ONCE, "Begin a transaction: what follows is queued.", group="transactions")
def multi(session: Session) -> Reply:
    if session.transaction:
        raise CommandError(errors.NESTED_MULTI)
    if session.writes is not None:
        raise CommandError(errors.MULTI_INSIDE_START)
    session.transaction = Transaction()
    return OK


@command(
    "EXEC",
    "",
    AT_ONCE,
    "Carry out what is queued, in one step, unless a watched key has changed.",
    group="transactions",
)
def exec_(session: Session) -> Reply:
    transaction = session.transaction
    if transaction is None:
        raise CommandError(errors.EXEC_WITHOUT_MULTI)
    session.take_leisure(transaction.is_long and not transaction.runs_script)
    try:
        if transaction.aborted:
            raise CommandError(errors.TRANSACTION_ABORTED)
        if transaction.grows and session.store.is_full:
            raise CommandError(errors.TRANSACTION_ABORTED_BY + errors.OUT_OF_MEMORY)
        session.transaction = None  # handlers must not see it: they are being carried out
        session.in_exec = True
        with session.store.atomic():
            for key, version in session.watched.items():
                if not session.store.unchanged(key, version):
                    return NIL_ARRAY
            return [_run(session, row, arguments) for row, arguments in transaction.queue]
    finally:
        session.in_exec = False
        session.end_transaction()


def _run(session: Session, row: Command, arguments: list[bytes]) -> Reply:
    """Carry out one command of many: its error takes its place among the replies."""
    try:
        return session.run(row, arguments)
    except CommandError as error:
        return error.as_reply()
    except Exception:
        return internal_error(row.name)


@command("DISCARD", "", AT_ONCE, "Forget what is queued and what is watched.", group="transactions")
def discard(session: Session) -> Reply:
    if session.transaction is None:
        raise CommandError(errors.DISCARD_WITHOUT_MULTI)
    session.end_transaction()
    return OK


@command(
    "WATCH",
    "key [key ...]",
    AT_ONCE,
    "Have the next EXEC refuse if one of these keys changes before it.",
    group="transactions",
    keys=ALL_KEYS,
)
def watch(session: Session, *keys: Key) -> Reply:
    if session.transaction:
        raise CommandError(errors.WATCH_INSIDE_MULTI)
    if len(session.watched) + len(keys) > MAX_WATCHED:
        raise CommandError(f"ERR a connection may watch {MAX_WATCHED} keys")
    for key in keys:
        if key not in session.watched:
            session.watched[key] = session.store.watch(key)
            session.watched_bytes += len(split_key(key)[1]) + WATCHED_BYTES
    return OK


@command("UNWATCH", "", NONE, "Forget what is watched.", group="transactions")
def unwatch(session: Session) -> Reply:
    session.unwatch()
    return OK
