"""How requests are shown to people (MONITOR, the slow log): in Redis's form, without passwords."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

HIDDEN: Final = b"(redacted)"

_SECRET_PARAMETERS: Final = frozenset(
    (b"REQUIREPASS", b"MASTERAUTH", b"MASTERUSER", b"TLS-KEY-FILE-PASS", b"TLS-CLIENT-KEY-FILE-PASS")
)  # fmt: skip

_TO_ESCAPE: Final = re.compile(rb"[^ !#-\[\]-~]")  # what is not printable, and `"` and `\`
_ESCAPES: Final = {
    ord("\n"): b"\\n", ord("\r"): b"\\r", ord("\t"): b"\\t", 7: b"\\a", 8: b"\\b",
    ord('"'): b'\\"', ord("\\"): b"\\\\",
}  # fmt: skip


def quoted(word: bytes) -> bytes:
    """Return a word in quotes, on one line and in ASCII, as Redis has it."""
    return b'"%b"' % _TO_ESCAPE.sub(_escape, word)


def _escape(match: re.Match[bytes]) -> bytes:
    byte = match[0][0]
    return _ESCAPES.get(byte) or b"\\x%02x" % byte


def without_secrets(words: Sequence[bytes]) -> Sequence[bytes]:
    """Return the words of a request with `(redacted)` in place of passwords."""
    name = words[0].upper() if words else b""
    subcommand = words[1].upper() if len(words) > 1 else b""
    if name == b"AUTH":
        return [words[0]] + [HIDDEN] * (len(words) - 1)
    if name == b"HELLO":
        return _hide_after_auth(words)
    if name == b"ACL" and subcommand == b"SETUSER":
        return [*words[:2]] + [HIDDEN] * (len(words) - 2)
    if name == b"CONFIG" and subcommand == b"SET":
        shown = list(words)
        for place in range(2, len(words) - 1, 2):
            if words[place].upper() in _SECRET_PARAMETERS:
                shown[place + 1] = HIDDEN
        return shown
    return words


def _hide_after_auth(words: Sequence[bytes]) -> list[bytes]:
    """Hide the two words that follow AUTH in HELLO, even where AUTH may be the client's name."""
    shown = list(words)
    for place, word in enumerate(words):
        if place and word.upper() == b"AUTH":
            hidden = shown[place + 1 : place + 3]
            shown[place + 1 : place + 3] = [HIDDEN] * len(hidden)
    return shown
