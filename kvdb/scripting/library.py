"""The library `redis`: what a script has of the server."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Final, Protocol

from kvdb.errors import CommandError
from kvdb.lua.errors import LuaError
from kvdb.lua.values import Results, Table, Value, number_text, to_text
from kvdb.replies import Reply
from kvdb.scripting.conversion import error_table, to_lua

log = logging.getLogger(__name__)

Builtin = Callable[..., Value]

_LEVELS: Final = {
    0.0: logging.DEBUG, 1.0: logging.DEBUG, 2.0: logging.INFO, 3.0: logging.WARNING,
}  # fmt: skip
_REPLICATION_FLAGS: Final = {
    b"REPL_NONE": 0.0, b"REPL_AOF": 1.0, b"REPL_SLAVE": 2.0, b"REPL_REPLICA": 2.0, b"REPL_ALL": 3.0,
}  # fmt: skip


class Server(Protocol):
    """What the library needs of whoever runs a script."""

    def call(self, words: list[bytes]) -> Reply:
        """Carry out a command for the script. Raises CommandError."""

    def may(self, words: list[bytes]) -> bool:
        """Tell whether the script's user may do that. Raises CommandError: no such command."""

    resp: int
    """The version of RESP that the script has chosen."""


def redis_library(server: Server, version: str) -> dict[bytes, Value]:
    """Return the functions. `version` is Redis's, as scripts are to know it."""

    def call(*words: Value) -> Value:
        try:
            return to_lua(server.call(_words(words)), server.resp)
        except CommandError as error:
            raise LuaError(_counted_already(error)) from None

    def pcall_(*words: Value) -> Value:
        try:
            return to_lua(server.call(_words(words)), server.resp)
        except CommandError as error:
            return _counted_already(error)
        except LuaError as error:
            return error.value

    def acl_check_cmd(*words: Value) -> Value:
        try:
            return server.may(_words(words))
        except CommandError:
            raise _refusal("Invalid command passed to redis.acl_check_cmd()") from None

    def setresp(*arguments: Value) -> Value:
        if len(arguments) != 1:
            raise _refusal("redis.setresp() requires one argument.")
        if arguments[0] not in (2.0, 3.0):
            raise _refusal("RESP version must be 2 or 3.")
        server.resp = int(arguments[0])
        return Results()

    return {
        b"call": call, b"pcall": pcall_, b"acl_check_cmd": acl_check_cmd, b"setresp": setresp,
        b"error_reply": _error_reply, b"status_reply": _status_reply, b"sha1hex": _sha1hex,
        b"log": _log, b"set_repl": _set_repl, b"replicate_commands": lambda *_: True,
        b"breakpoint": lambda *_: False, b"debug": lambda *_: Results(),
        b"LOG_DEBUG": 0.0, b"LOG_VERBOSE": 1.0, b"LOG_NOTICE": 2.0, b"LOG_WARNING": 3.0,
        b"REDIS_VERSION": version.encode(), b"REDIS_VERSION_NUM": _as_number(version),
        **_REPLICATION_FLAGS,
    }  # fmt: skip


def _as_number(version: str) -> float:
    major, minor, patch = map(int, version.split("."))
    return float(major << 16 | minor << 8 | patch)


def pcall_of_redis(pcall: Builtin) -> Builtin:
    """Return a pcall() that leaves of an error that a command has answered only the text."""

    def call(*arguments: Value) -> Value:
        result = pcall(*arguments)
        if type(result) is Results and result[0] is False and isinstance(result[1], Table):
            text = result[1].get(b"err")
            if type(text) is bytes:
                return Results((False, text))
        return result

    return call


def _refusal(text: str) -> LuaError:
    return LuaError(error_table(f"ERR {text}"))


def _counted_already(error: CommandError) -> Table:
    """Return the error of a command, which was counted where it happened."""
    table = error_table(error.text)
    table[b"ignore_error_stats_update"] = True
    return table


def _words(values: tuple[Value, ...]) -> list[bytes]:
    """Return a request: strings as they are, numbers as Lua shows them."""
    if not values:
        raise _refusal("Please specify at least one argument for this redis lib call")
    words: list[bytes] = []
    for value in values:
        word = value if type(value) is bytes else _word(value)
        if word is None:
            raise _refusal("Lua redis lib command arguments must be strings or integers")
        words.append(word)
    return words


def _word(value: Value) -> bytes | None:
    """Return a number as a word of a request: with all of its digits, unlike tostring()."""
    if type(value) is not float:
        return None
    return b"%.17g" % value if value == value else number_text(value)


def _error_reply(*arguments: Value) -> Value:
    text = to_text(arguments[0]) if len(arguments) == 1 and type(arguments[0]) is bytes else None
    if text is None:
        return error_table("ERR wrong number or type of arguments")
    shown = text.removeprefix(b"-").decode("utf-8", "surrogateescape")
    return error_table(shown if " " in shown else f"ERR {shown}")


def _status_reply(*arguments: Value) -> Value:
    if len(arguments) != 1 or type(arguments[0]) is not bytes:
        return error_table("ERR wrong number or type of arguments")
    return Table({b"ok": arguments[0]})


def _sha1hex(*arguments: Value) -> Value:
    if len(arguments) != 1:
        raise _refusal("wrong number of arguments")
    text = to_text(arguments[0]) or b""
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def _log(*arguments: Value) -> Value:
    if len(arguments) < 2:
        raise _refusal("redis.log() requires two arguments or more.")
    level, *parts = arguments
    if type(level) is not float:
        raise _refusal("First argument must be a number (log level).")
    if level not in _LEVELS:
        raise _refusal("Invalid debug level.")
    text = b" ".join(filter(None, map(to_text, parts))).decode("utf-8", "backslashreplace")
    log.log(_LEVELS[level], "script: %s", text.encode("unicode_escape").decode())
    return Results()


def _set_repl(*arguments: Value) -> Value:
    """Do nothing: what a script changes is always told."""
    if len(arguments) != 1:
        raise _refusal("redis.set_repl() requires two arguments.")
    if arguments[0] not in _REPLICATION_FLAGS.values():
        raise _refusal(
            "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."
        )
    return Results()
