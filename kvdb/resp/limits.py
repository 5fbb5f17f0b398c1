"""How long the parts of a message may be, and how a length is written."""

from __future__ import annotations

from typing import Final

MAX_LINE: Final = 64 * 1024
"""Redis's limit for an inline request and for a header line."""

STRANGERS_LINE: Final = 4 * 1024
"""The same before a password was given: a stranger costs a few kilobytes."""

MAX_BULK: Final = 512 * 1024 * 1024
"""Redis's default proto-max-bulk-len. A longer announcement cannot be meant seriously."""


def parse_length(text: bytes, negative: bool = False) -> int | None:
    """Parse a length by its exact form: no sign but an allowed minus, no space, no leading 0."""
    digits = text[1:] if negative and text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 10 or (digits[0] == ord("0") and len(text) > 1):
        return None
    return int(text)
