"""What tools ask for that is not here: modules and functions. They expect an empty answer."""

from __future__ import annotations

import kvdb
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, NONE, REDIS_VERSION, command, container
from kvdb.errors import CommandError
from kvdb.replies import OK, Reply, Verbatim

container("MODULE", "There are no modules.", group="server")
container("FUNCTION", "There are no functions.", group="scripting")


@command("MODULE LIST", "", ADMIN, "Return an empty list.", group="server")
def module_list(session: Session) -> Reply:
    return []


@command(
    "FUNCTION LIST",
    "[LIBRARYNAME library-name-pattern] [WITHCODE]",
    NONE,
    "Return an empty list.",
    group="scripting",
    open_ended=True,
)
def function_list(session: Session, *options: bytes) -> Reply:
    words = list(options)
    while words:
        word = words.pop(0)
        if word.upper() == b"LIBRARYNAME":
            if not words:
                raise CommandError("ERR library name argument was not given")
            words.pop(0)
        elif word.upper() != b"WITHCODE":
            raise CommandError(f"ERR Unknown argument {word[:128].decode('utf-8', 'replace')}")
    return []


@command("FUNCTION STATS", "", NONE, "Say that nothing is running.", group="scripting")
def function_stats(session: Session) -> Reply:
    return {b"running_script": None, b"engines": {}}


@command("FUNCTION FLUSH", "[ASYNC | SYNC]", NONE, "Do nothing.", group="scripting")
def function_flush(session: Session, *mode: bytes) -> Reply:
    if mode and mode[0].upper() not in (b"ASYNC", b"SYNC"):
        raise CommandError("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
    return OK


@command("FUNCTION KILL", "", NONE, "As SCRIPT KILL.", group="scripting")
def function_kill(session: Session) -> Reply:
    session.instance.scripts.kill()
    return OK


@command(
    "FUNCTION LOAD",
    "[REPLACE] function-code",
    NONE,
    "Refused: there are no functions.",
    group="scripting",
)
def function_load(session: Session, *words: bytes) -> Reply:
    raise CommandError("ERR functions are not supported here: use EVAL, or SCRIPT LOAD and EVALSHA")


@command("FUNCTION DELETE", "library-name", NONE, "Refused: there is none.", group="scripting")
def function_delete(session: Session, name: bytes) -> Reply:
    raise CommandError("ERR Library not found")


@command(
    "FCALL",
    "function numkeys [key ...] [arg ...]",
    NONE,
    "Refused: there are no functions.",
    group="scripting",
    counted_keys=(1, 2, 1),
)
def fcall(session: Session, *words: object) -> Reply:
    raise CommandError("ERR Function not found")


@command(
    "FCALL_RO",
    "function numkeys [key ...] [arg ...]",
    NONE,
    "Refused: there are no functions.",
    group="scripting",
    counted_keys=(1, 2, 1),
)
def fcall_ro(session: Session, *words: object) -> Reply:
    raise CommandError("ERR Function not found")


_PICTURE = r"""
    _       _  _
   | |____ | || |__       What is kept
   | / /\ \/ /  |  _ \      is what is said;
   |  <  \  /   | |_) |      the rest
   |_|\_\ \/    |_,__/        expires.
"""


@command(
    "LOLWUT",
    "[VERSION version]",
    NONE,
    "Say which version this is.",
    group="server",
    open_ended=True,
)
def lolwut(session: Session, *ignored: bytes) -> Reply:
    return Verbatim(f"{_PICTURE}\nRedis ver. {REDIS_VERSION} (kvdb {kvdb.__version__})\n")
