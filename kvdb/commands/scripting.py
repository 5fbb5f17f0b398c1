"""EVAL and its like: programs in Lua that clients send, each carried out as one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdb.commands.arguments import integer
from kvdb.commands.session import Session
from kvdb.commands.table import NONE, command, container
from kvdb.errors import CommandError
from kvdb.replies import OK, Reply

if TYPE_CHECKING:
    from kvdb.scripting.scripts import Script
from kvdb.store.entry import Key, split_key

container("SCRIPT", "Keep scripts, and end them.", group="scripting")

_DIGEST_DIGITS = 40


@command(
    "EVAL",
    "script numkeys [key ...] [arg ...]",
    NONE,
    "Carry out a script in Lua; no other client sees half of what it does.",
    group="scripting",
    counted_keys=(1, 2, 1),
)
def eval_(session: Session, source: bytes, count: bytes, *words: Key) -> Reply:
    return _run(session, session.instance.scripts.machine.scripts.add(source), count, words)


@command(
    "EVAL_RO",
    "script numkeys [key ...] [arg ...]",
    NONE,
    "Carry out a script that writes nothing.",
    group="scripting",
    counted_keys=(1, 2, 1),
)
def eval_ro(session: Session, source: bytes, count: bytes, *words: Key) -> Reply:
    return _run(session, session.instance.scripts.machine.scripts.add(source), count, words, True)


@command(
    "EVALSHA",
    "sha1 numkeys [key ...] [arg ...]",
    NONE,
    "Carry out a script that is known already, by its SHA-1.",
    group="scripting",
    counted_keys=(1, 2, 1),
)
def evalsha(session: Session, digest: bytes, count: bytes, *words: Key) -> Reply:
    return _run(session, _find(session, digest), count, words)


@command(
    "EVALSHA_RO",
    "sha1 numkeys [key ...] [arg ...]",
    NONE,
    "Carry out a known script that writes nothing.",
    group="scripting",
    counted_keys=(1, 2, 1),
)
def evalsha_ro(session: Session, digest: bytes, count: bytes, *words: Key) -> Reply:
    return _run(session, _find(session, digest), count, words, True)


def _find(session: Session, digest: bytes) -> Script:
    script = (
        session.instance.scripts.machine.scripts.find(digest)
        if len(digest) == _DIGEST_DIGITS
        else None
    )
    if script is None:
        raise CommandError("NOSCRIPT No matching script. Please use EVAL.")
    return script


def _run(
    session: Session, script: Script, count: bytes, words: tuple[Key, ...], read_only: bool = False
) -> Reply:
    number = integer(count)
    if number > len(words):
        raise CommandError("ERR Number of keys can't be greater than number of args")
    if number < 0:
        raise CommandError("ERR Number of keys can't be negative")
    given = [split_key(word)[1] for word in words]  # the script calls keys by their names
    before = session.db, session.version, session.in_exec
    session.version, session.in_exec = 2, True
    try:
        machine = session.instance.scripts.machine
        return machine.run(script, session, given[:number], given[number:], read_only)
    finally:
        session.db, session.version, session.in_exec = before


@command("SCRIPT LOAD", "script", NONE, "Keep a script; return its SHA-1.", group="scripting")
def script_load(session: Session, source: bytes) -> Reply:
    return session.instance.scripts.machine.scripts.add(source, loaded=True).digest.encode()


@command(
    "SCRIPT EXISTS",
    "sha1 [sha1 ...]",
    NONE,
    "Tell of each SHA-1 whether its script is known.",
    group="scripting",
)
def script_exists(session: Session, *digests: bytes) -> Reply:
    scripts = session.instance.scripts.machine.scripts
    return [int(scripts.find(digest) is not None) for digest in digests]


@command("SCRIPT FLUSH", "[ASYNC | SYNC]", NONE, "Forget all scripts.", group="scripting")
def script_flush(session: Session, *mode: bytes) -> Reply:
    if mode and mode[0].upper() not in (b"ASYNC", b"SYNC"):
        raise CommandError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    session.instance.scripts.machine.scripts.clear()
    return OK


@command(
    "SCRIPT KILL",
    "",
    NONE,
    "End the script that keeps all others waiting, if it has written nothing.",
    group="scripting",
)
def script_kill(session: Session) -> Reply:
    session.instance.scripts.kill()
    return OK


@command("SCRIPT DEBUG", "YES | SYNC | NO", NONE, "Refused, but for NO.", group="scripting")
def script_debug(session: Session, mode: bytes) -> Reply:
    if mode.upper() not in (b"YES", b"SYNC", b"NO"):
        raise CommandError("ERR Use SCRIPT DEBUG YES/SYNC/NO")
    if mode.upper() != b"NO":
        raise CommandError("ERR there is no debugger for scripts here")
    return OK
