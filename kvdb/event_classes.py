"""Which keyspace events are told: the letters of Redis's notify-keyspace-events."""

from __future__ import annotations

from typing import Final

KEYSPACE: Final = "K"
"""Tell what has happened to a key: `__keyspace@0__:<key>` says `<event>`."""
KEYEVENT: Final = "E"
"""Tell which key something has happened to: `__keyevent@0__:<event>` says `<key>`."""
GENERIC: Final = "g"
STRING: Final = "$"
EXPIRED: Final = "x"
EVICTED: Final = "e"
NEW: Final = "n"
MISS: Final = "m"

_ALL: Final = "g$lshzxetd"
"""What A stands for, in the order in which Redis lists them; of these we have g, $, x and e."""

_ORDER: Final = _ALL + "nKEm"


def parse_event_classes(text: str) -> frozenset[str]:
    """Return the letters that a setting means, A taken apart. Raises ValueError in Redis's words."""
    letters = set(text)
    if not letters <= {*_ORDER, "A"}:
        raise ValueError("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
    if "A" in letters:
        letters = letters - {"A"} | set(_ALL)
    return frozenset(letters)


def show_event_classes(letters: frozenset[str]) -> str:
    """Return the letters as Redis shows them: A for all that it stands for.

    Beside A, Redis forgets to show n; so that what is shown can be set again, we do not.
    """
    if letters >= set(_ALL):
        return "A" + "".join(letter for letter in "nKEm" if letter in letters)
    return "".join(letter for letter in _ORDER if letter in letters)
