"""The options of SET and its relatives: on which condition, and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Final

from kvdb import errors
from kvdb.commands.arguments import UNITS, deadline
from kvdb.errors import CommandError
from kvdb.store.entry import Entry

CONDITIONS: Final = frozenset((b"NX", b"XX", b"IFEQ", b"IFNE"))

_WITH_VALUE: Final = frozenset((b"IFEQ", b"IFNE"))


@dataclass
class SetOptions:
    """What was asked for; at most one option says what becomes of the deadline."""

    condition: bytes = b""  # one of CONDITIONS
    compared: bytes = b""  # the value behind IFEQ or IFNE
    return_old: bool = False
    timing: bytes = b""  # EX, PX, EXAT, PXAT, KEEPTTL or PERSIST
    number: bytes = b""  # what stands behind the first four

    def expires_at(self, now: float, command_name: str) -> float | None:
        """Return the deadline that is asked for, or None."""
        if self.timing not in UNITS:
            return None
        return deadline(self.number, *UNITS[self.timing], command_name, now)

    def is_met_by(self, entry: Entry | None) -> bool:
        """Tell whether the condition is met by what the key holds (None: it does not exist)."""
        match self.condition:
            case b"NX":
                return entry is None
            case b"XX":
                return entry is not None
            case b"IFEQ":
                return entry is not None and entry.value == self.compared
            case b"IFNE":
                return entry is None or entry.value != self.compared
            case _:
                return True


def parse_options(options: tuple[bytes, ...], allowed: Set[bytes]) -> SetOptions:
    """Return what the options say. Raises CommandError, as Redis does, if they are not right."""
    parsed = SetOptions()
    words = iter(options)
    for word in words:
        option = word.upper()
        if option not in allowed:
            raise CommandError(errors.SYNTAX)
        if option in CONDITIONS:
            _take_condition(parsed, option, words)
        elif option == b"GET":
            parsed.return_old = True
        elif parsed.timing:
            raise CommandError(errors.SYNTAX)
        else:
            parsed.timing = option
            if option in UNITS:
                number = next(words, None)
                if number is None:
                    raise CommandError(errors.SYNTAX)
                parsed.number = number
    return parsed


def _take_condition(parsed: SetOptions, option: bytes, words: Iterator[bytes]) -> None:
    """Note a condition. NX and XX may be repeated, as in Redis; else there is one at most."""
    compared = next(words, None) if option in _WITH_VALUE else b""
    repeated = parsed.condition == option and option not in _WITH_VALUE
    if compared is None or (parsed.condition and not repeated):
        raise CommandError(errors.SYNTAX)
    parsed.condition, parsed.compared = option, compared
