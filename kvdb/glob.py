"""Redis's glob patterns (KEYS, SCAN MATCH, CONFIG GET).

Matching takes a time proportional to the name's length times the pattern's, at worst; stars
do not multiply it.

`*` any run of bytes, `?` one byte, `[abc]` `[a-z]` `[^a]` one byte of a class, `\\x` the byte x.
Not the shell's dialect: `[^...]` negates (`[!...]` does not), and a backslash works inside a
class, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from kvdb.errors import CommandError

MAX_PATTERN: Final = 1024
"""Longer patterns are refused. Real ones are a key name long."""


@lru_cache(maxsize=64)
def compile_glob(pattern: bytes) -> Callable[[bytes], object]:
    """Return a function that tells (by a true or a false value) whether a whole name matches.

    Raises CommandError if the pattern is longer than MAX_PATTERN.
    """
    if len(pattern) > MAX_PATTERN:
        raise CommandError(f"ERR pattern is longer than {MAX_PATTERN} bytes")
    pieces = _translate(pattern)
    if not pieces[1:]:
        return re.compile(pieces[0], re.DOTALL).fullmatch
    first, *middle, last = pieces
    # Between two stars the earliest place that fits is as good as any later one, so an atomic
    # group may forget the others: this is what keeps `*a*a*a*b` from trying them all.
    found = b"".join(b"(?>.*?%b)" % piece for piece in middle if piece)
    return re.compile(b"%b%b.*%b" % (first, found, last), re.DOTALL).fullmatch


def _translate(pattern: bytes) -> list[bytes]:
    """Return regular expressions of fixed length for what stands between the stars."""
    pieces = [b""]
    position = 0
    while position < len(pattern):
        byte = pattern[position : position + 1]
        position += 1
        if byte == b"*":
            pieces.append(b"")
        elif byte == b"?":
            pieces[-1] += b"."
        elif byte == b"[":
            expression, position = _translate_class(pattern, position)
            pieces[-1] += expression
        else:
            if byte == b"\\" and position < len(pattern):
                byte = pattern[position : position + 1]
                position += 1
            pieces[-1] += re.escape(byte)
    return pieces


def _translate_class(pattern: bytes, position: int) -> tuple[bytes, int]:
    """Translate the class that begins at `position`, after its `[`; return where it ends.

    As in Redis: a class that is never closed ends with the pattern, and a range may be
    written backwards.
    """
    negated = pattern[position : position + 1] == b"^"
    position += negated
    members: set[int] = set()
    while position < len(pattern) and pattern[position] != ord("]"):
        if pattern[position] == ord("\\") and position + 1 < len(pattern):
            members.add(pattern[position + 1])
            position += 2
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            low, high = sorted((pattern[position], pattern[position + 2]))
            members.update(range(low, high + 1))
            position += 3
        else:
            members.add(pattern[position])
            position += 1
    position += 1  # the closing bracket
    if not members:
        return (b"." if negated else b"(?!)"), position
    return b"[%b%b]" % (b"^" if negated else b"", _ranges(members)), position


def _ranges(members: set[int]) -> bytes:
    """Return the inside of a class. Ranges compile a hundred times faster than lists of bytes."""
    starts = [member for member in sorted(members) if member - 1 not in members]
    ends = [member for member in sorted(members) if member + 1 not in members]
    return b"".join(b"\\x%02x-\\x%02x" % pair for pair in zip(starts, ends, strict=True))
