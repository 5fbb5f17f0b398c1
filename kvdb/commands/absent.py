"""What tools ask for that is not here: modules, scripts, functions. They expect an empty answer."""

from __future__ import annotations

import kvdb
from kvdb.commands.connection import REDIS_VERSION
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, NONE, command, container
from kvdb.errors import CommandError
from kvdb.replies import OK, Reply, Verbatim

container("MODULE", "There are no modules.", group="server")
container("FUNCTION", "There are no functions.", group="scripting")
container("SCRIPT", "There are no scripts.", group="scripting")

_NOT_BUSY = "NOTBUSY No scripts in execution right now."


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


@command("FUNCTION KILL", "", NONE, "Refused: nothing is running.", group="scripting")
def function_kill(session: Session) -> Reply:
    raise CommandError(_NOT_BUSY)


@command("SCRIPT EXISTS", "sha1 [sha1 ...]", NONE, "Return 0 for each.", group="scripting")
def script_exists(session: Session, *digests: bytes) -> Reply:
    return [0] * len(digests)


@command("SCRIPT FLUSH", "[ASYNC | SYNC]", NONE, "Do nothing.", group="scripting")
def script_flush(session: Session, *mode: bytes) -> Reply:
    if mode and mode[0].upper() not in (b"ASYNC", b"SYNC"):
        raise CommandError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    return OK


@command("SCRIPT KILL", "", NONE, "Refused: nothing is running.", group="scripting")
def script_kill(session: Session) -> Reply:
    raise CommandError(_NOT_BUSY)


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
