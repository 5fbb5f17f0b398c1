"""What the tests of Lua share: programs, and what becomes of them, as a text."""

from __future__ import annotations

import math
import time
import unittest

from kvdb.lua.errors import CATCHABLE, ScriptEnded, lua_error
from kvdb.lua.lexer import LuaSyntaxError
from kvdb.lua.library import install
from kvdb.lua.library.mathematics import Random
from kvdb.lua.meter import Meter
from kvdb.lua.program import load
from kvdb.lua.runtime import Runtime
from kvdb.lua.values import Table, Userdata, Value, expand, key_value

_DEEPEST = 4  # tables in tables that are shown


def shown(value: Value, depth: int = 0) -> str:
    """Return a value as a text that tells it from all others; a function has no content."""
    if value is None or type(value) is bool:
        return "nil" if value is None else str(value).lower()
    if type(value) is float:
        if value != value:
            return "-nan" if math.copysign(1, value) < 0 else "nan"
        return f"{value:.17g}"
    if type(value) is bytes:
        return f'"{quoted(value)}"'
    if isinstance(value, Table):
        if depth > _DEEPEST:
            return "{...}"
        fields = (
            f"[{shown(key_value(key), depth + 1)}]={shown(field, depth + 1)}"
            for key, field in value.items()
        )
        return "{" + ",".join(sorted(fields)) + "}"
    if isinstance(value, Userdata):
        return "userdata"
    assert type(value) is not int, value  # every number is a float
    assert callable(value), value
    return "function"


def quoted(text: bytes) -> str:
    """Return a string's printable characters as they are, and all others as \\x00."""
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in text)


class Interpreter:
    """Runs programs for a limited time, and tells what has become of them."""

    def __init__(self, longest: float = 5.0) -> None:
        self._longest, self._deadline = longest, 0.0
        self.meter = Meter(time.monotonic, self._look)
        self.runtime = Runtime(self.meter)
        install(self.runtime, Random())
        self.looks = 0

    def _look(self) -> None:
        self.looks += 1
        if time.monotonic() >= self._deadline:
            raise ScriptEnded("timeout")

    def outcome(self, program: str) -> str:
        """Return "ok" and all results, "error" and its value, "syntax" and the message, or "ended".

        Anything else that a program raises is a fault of the interpreter, and comes out.
        """
        self._deadline = time.monotonic() + self._longest
        self.meter.begin()
        try:
            main = load(self.runtime, program.encode("latin-1"), "user_script")
            return "ok " + " ".join(map(shown, expand(main())))
        except LuaSyntaxError as wrong:
            return "syntax " + quoted(str(wrong).encode("utf-8", "surrogateescape"))
        except ScriptEnded as ended:
            return f"ended {ended}"
        except CATCHABLE as raised:
            return "error " + shown(lua_error(raised).value)


class LuaTest(unittest.TestCase):
    """`self.lua` runs programs."""

    def setUp(self) -> None:
        self.lua = Interpreter()

    def assert_outcomes(self, *table: tuple[str, str]) -> None:
        """Each of these programs ends as told."""
        for program, expected in table:
            with self.subTest(program=program):
                self.assertEqual(self.lua.outcome(program), expected)
