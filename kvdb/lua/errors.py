"""What goes wrong in a program, where, and what Lua says of it.

A frame of Python's stack is a function of the program if its globals name the places of a chunk.
"""

from __future__ import annotations

import itertools
import re
import sys
import types
from typing import Final, NamedTuple

from kvdb.lua.values import Function, GuardedTable, Value, type_name


class LuaError(Exception):
    """An error of the program: any value. pcall() catches it."""

    def __init__(self, value: Value) -> None:
        super().__init__(value)
        self.value = value


CATCHABLE: Final = (LuaError, TypeError, RecursionError, MemoryError)
"""What may be an error of the program: see lua_error()."""


class ScriptEnded(Exception):
    """The program may not go on. Nothing that it does can catch that."""


class Place(NamedTuple):
    """What errors have to know of a place in the program."""

    operands: tuple[str, ...] = ()
    """What the operands are called there; an empty string is no name."""
    called: str = ""
    """What is called there."""
    is_tail: bool = False
    """A function of the program returns what it calls there: for Lua, it is gone by then."""


def call_back(function: Function, *arguments: Value) -> Value:
    """Call a function on behalf of a library function, which stands in between for errors."""
    return function(*arguments)


def error(message: str, level: int = 1) -> LuaError:
    """Return an error that tells where it was made: as luaL_error does."""
    return LuaError(position(level) + message.encode("utf-8", "surrogateescape"))


def position(level: int) -> bytes:
    """Return `chunk:line: ` of a function under way; 1: the one that called a library function."""
    frame: types.FrameType | None = sys._getframe(1)
    calls_program = False
    while frame is not None:
        is_program = _is_program(frame)
        if is_program or frame.f_code is call_back.__code__:
            level -= 1
            if level == 0:
                is_gone = is_program and calls_program and _place_at(frame, frame.f_lasti).is_tail
                return _line_of(frame) if is_program and not is_gone else b""
            calls_program = is_program
        frame = frame.f_back
    return b""


def _is_program(frame: types.FrameType) -> bool:
    return "PLACES" in frame.f_globals


def _line_of(frame: types.FrameType) -> bytes:
    chunk: str = frame.f_globals["CHUNK"]
    return f"{chunk}:{frame.f_lineno}: ".encode("utf-8", "surrogateescape")


def operand_error(action: str, value: Value, operand: int | None = 0) -> LuaError:
    """Return the error of an operation that a value of this type cannot take part in.

    `operand` is its place among the operands; None: it is not one of them.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and not _is_program(frame):
        frame = None if frame.f_code is call_back.__code__ else frame.f_back
    names = _place_at(frame, frame.f_lasti).operands if frame else ()
    name = names[operand] if operand is not None and operand < len(names) else ""
    return error(_operand_text(action, name, type_name(value)))


def _operand_text(action: str, name: str, kind: str) -> str:
    return (
        f"attempt to {action} {name} (a {kind} value)"
        if name
        else f"attempt to {action} a {kind} value"
    )


def _place_at(frame: types.FrameType, instruction: int) -> Place:
    """Return the place of the instruction that a frame carries out."""
    positions = itertools.islice(frame.f_code.co_positions(), instruction // 2, None)
    _, _, place, _ = next(positions, (None, None, None, None))
    places: list[Place] = frame.f_globals["PLACES"]
    return places[place] if place is not None and place < len(places) else Place()


def argument_error(number: int, message: str) -> LuaError:
    """Return the error of a library function about one of its arguments, counted from 1."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and not _is_program(frame):
        frame = None if frame.f_code is call_back.__code__ else frame.f_back
    kind, _, name = (_place_at(frame, frame.f_lasti) if frame else Place()).called.partition(" ")
    name = name or "'?'"
    if kind == "method":
        number -= 1
        if number == 0:
            return error(f"calling {name} on bad self ({message})")
    return error(f"bad argument #{number} to {name} ({message})")


_NOT_CALLABLE: Final = re.compile(r"'(\w+)' object is not callable")
_PYTHON_NAMES: Final = {
    "NoneType": "nil", "float": "number", "bytes": "string", "bool": "boolean",
    "Userdata": "userdata",
}  # fmt: skip


def lua_error(error: Exception) -> LuaError:
    """Return what an exception is to the program. Raises it anew if it is a fault of ours.

    That something cannot be called, or that functions nest too deep, Python finds out.
    """
    if isinstance(error, LuaError):
        return error
    if isinstance(error, RecursionError):
        return LuaError(_innermost(error)[1] + b"stack overflow")
    if isinstance(error, MemoryError):
        return LuaError(b"not enough memory")
    found = _NOT_CALLABLE.fullmatch(str(error)) if isinstance(error, TypeError) else None
    if found is None:
        raise error
    name, where = _innermost(error)
    text = _operand_text("call", name, _PYTHON_NAMES.get(found[1], "table"))
    return LuaError(where + text.encode("utf-8", "surrogateescape"))


def _innermost(error: BaseException) -> tuple[str, bytes]:
    """Return what was called where an exception was raised, and the place in the program.

    Both are empty if a library function was calling; what a metatable has called has no name.
    """
    trace = error.__traceback__
    name, where = "", b""
    while trace is not None:
        frame = trace.tb_frame
        if _is_program(frame):
            chunk: str = frame.f_globals["CHUNK"]
            name = _place_at(frame, trace.tb_lasti).called
            where = f"{chunk}:{trace.tb_lineno}: ".encode("utf-8", "surrogateescape")
        elif frame.f_code is call_back.__code__:
            name, where = "", b""
        elif frame.f_code is not GuardedTable.__call__.__code__:
            name = ""
        trace = trace.tb_next
    return name, where


def line_of(error: BaseException) -> int | None:
    """Return the line of the program where an exception was raised."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if _is_program(trace.tb_frame):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
