"""The scripts that are known, by the SHA-1 of their text."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvdb.errors import CommandError
from kvdb.lua.lexer import LuaSyntaxError
from kvdb.lua.values import Function

CHUNK: Final = "user_script"
"""What errors call a script, as in Redis."""

MOST_SCRIPTS: Final = 500
"""How many of those are kept that only EVAL has brought (as in Redis 7.4); the oldest go first."""

LONGEST_SCRIPT: Final = 128 * 1024
"""Bytes: compiling takes about 6 microseconds for each, and nobody is answered meanwhile."""

_FLAGS: Final = frozenset(
    ("no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys")
)

_BYTES_EACH: Final = 40
"""What a script takes for each byte of its text, about: measured, with its code objects."""


@dataclass
class Script:
    """A script that was compiled."""

    digest: str
    main: Function
    flags: frozenset[str] | None
    """What its first line says, `#!lua flags=no-writes`; None: it has no such line."""
    size: int
    is_loaded: bool = False
    """SCRIPT LOAD has brought it: it stays until SCRIPT FLUSH."""


class ScriptCache:
    """Compiles scripts, and keeps them. The store's lock guards it."""

    def __init__(self, load: Callable[[bytes, str], Function]) -> None:
        """`load` makes a function of a source text; it raises LuaSyntaxError."""
        self._load = load
        self._scripts: OrderedDict[str, Script] = OrderedDict()
        self.held_bytes = 0
        """What the scripts take, about."""

    def __len__(self) -> int:
        return len(self._scripts)

    def find(self, digest: bytes) -> Script | None:
        """Return the script with this SHA-1 (in hexadecimal digits, of either case)."""
        name = digest.decode("latin-1").lower()
        script = self._scripts.get(name)
        if script is not None:
            self._scripts.move_to_end(name)
        return script

    def add(self, source: bytes, loaded: bool = False) -> Script:
        """Return the script with this text; compile it if need be. Raises CommandError."""
        digest = hashlib.sha1(source, usedforsecurity=False).hexdigest()
        script = self._scripts.get(digest)
        if script is None:
            if len(source) > LONGEST_SCRIPT:
                raise CommandError(f"ERR the script is longer than {LONGEST_SCRIPT} bytes")
            flags, text = _read_first_line(source)
            try:
                main = self._load(text, CHUNK)
            except LuaSyntaxError as error:
                raise CommandError(f"ERR Error compiling script (new function): {error}") from None
            size = 5_000 + _BYTES_EACH * len(source)
            script = self._scripts[digest] = Script(digest, main, flags, size)
            self.held_bytes += size
            self._forget_old()
        self._scripts.move_to_end(digest)
        script.is_loaded = script.is_loaded or loaded
        return script

    def _forget_old(self) -> None:
        brought = [each for each in self._scripts.values() if not each.is_loaded]
        for script in brought[: max(0, len(brought) - MOST_SCRIPTS)]:
            del self._scripts[script.digest]
            self.held_bytes -= script.size

    def clear(self) -> None:
        """Forget all scripts."""
        self._scripts.clear()
        self.held_bytes = 0


def _read_first_line(source: bytes) -> tuple[frozenset[str] | None, bytes]:
    """Return the flags in `#!lua flags=a,b`, None without such a line; and what is to be compiled.

    The line stays, empty: it counts among the lines.
    """
    if not source.startswith(b"#!"):
        return None, source
    line, newline, rest = source.partition(b"\n")
    if not newline:
        raise CommandError("ERR Invalid script shebang")
    engine, *options = line.decode("utf-8", "surrogateescape").split()
    if engine != "#!lua":
        raise CommandError(f"ERR Unexpected engine in script shebang: {engine}")
    flags: set[str] = set()
    for option in options:
        name, _, value = option.partition("=")
        if name != "flags":
            raise CommandError(f"ERR Unknown lua shebang option: {option}")
        for flag in filter(None, value.split(",")):
            if flag not in _FLAGS:
                raise CommandError(f"ERR Unexpected flag in script shebang: {flag}")
            flags.add(flag)
    return frozenset(flags), b"\n" + rest
