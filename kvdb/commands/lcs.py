"""LCS: the longest common subsequence of two values.

The table of lengths that everybody fills for it would take Python a second for two values of
2,000 bytes. Along a row the length grows by 0 or 1 from one place to the next, so a row is one
number of that many bits, and the next row follows from it with an addition and a few logical
operations (Crochemore, Iliopoulos, Pinzon and Reid, 2001): 4 ms. The bits lie along the longer
value, so that there are few rows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kvdb import errors
from kvdb.commands.arguments import integer
from kvdb.commands.session import Session
from kvdb.commands.table import READ, TWO_KEYS, command
from kvdb.errors import CommandError
from kvdb.replies import Reply
from kvdb.store.entry import Key

_TOO_MUCH: Final = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
_CELL: Final = 4  # bytes that Redis takes for a place of its table: its limit is ours, too

_QUICK: Final = 1_000  # bytes that both keys cost: below half a millisecond


class _Options(NamedTuple):
    length: bool = False
    indexes: bool = False
    least: int = 0  # bytes that a match has, to be told of
    with_lengths: bool = False


class _Match(NamedTuple):
    """A stretch that both values have; first and last place in each."""

    first: tuple[int, int]
    second: tuple[int, int]


def _parse(words: tuple[bytes, ...]) -> _Options:
    asked = _Options()
    rest = iter(words)
    for word in rest:
        match word.upper():
            case b"LEN":
                asked = asked._replace(length=True)
            case b"IDX":
                asked = asked._replace(indexes=True)
            case b"WITHMATCHLEN":
                asked = asked._replace(with_lengths=True)
            case b"MINMATCHLEN" if (number := next(rest, None)) is not None:
                asked = asked._replace(least=max(0, integer(number)))
            case _:
                raise CommandError(errors.SYNTAX)
    if asked.length and asked.indexes:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    return asked


@command(
    "LCS",
    "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    READ,
    "Find the longest sequence of bytes that two values have in common.",
    group="string",
    keys=TWO_KEYS,
    open_ended=True,
)
def lcs(session: Session, key1: Key, key2: Key, *options: bytes) -> Reply:
    asked = _parse(options)
    if not session.at_leisure:
        costs = (session.store.cost(key) or 0 for key in (key1, key2))
        session.take_leisure(sum(costs) > _QUICK)
    first, second = (value or b"" for value in session.store.get_many((key1, key2)))
    if _CELL * (len(first) + 1) * (len(second) + 1) > session.instance.config.max_value_bytes:
        raise CommandError(_TOO_MUCH)
    if asked.length:
        return common_length(first, second)
    sequence, matches = common_subsequence(first, second)
    if not asked.indexes:
        return sequence
    shown: list[Reply] = []
    for match in matches:
        length = match.first[1] - match.first[0] + 1
        if length >= asked.least:
            ends: list[Reply] = [list(match.first), list(match.second)]
            shown.append([*ends, length] if asked.with_lengths else ends)
    return {b"matches": shown, b"len": len(sequence)}


def _rows(short: bytes, long: bytes) -> list[int]:
    """Return a row for each beginning of `short`, the empty one first.

    A bit is 1 where the common length does not grow with that byte of `long`, else 0.
    """
    ones = (1 << len(long)) - 1
    where = dict.fromkeys(short, 0)
    for byte in where:
        # Of all bytes of `long` a 1 for this one, as digits that int() turns into bits.
        digits = long.translate(bytes(49 if each == byte else 48 for each in range(256)))
        where[byte] = _number_of_digits(digits[::-1])
    rows = [ones]
    row = ones
    for byte in short:
        matching = row & where[byte]
        row = (row + matching | row - matching) & ones
        rows.append(row)
    return rows


def _number_of_digits(digits: bytes) -> int:
    """Return the number that binary digits mean; there may be none."""
    return int(digits, 2) if digits else 0


def common_length(first: bytes, second: bytes) -> int:
    """Return how long the longest common subsequence is."""
    short, long = sorted((first, second), key=len)
    return len(long) - _rows(short, long)[-1].bit_count()


def common_subsequence(first: bytes, second: bytes) -> tuple[bytes, list[_Match]]:
    """Return it, and the stretches that it consists of, the last one first.

    Of several that are as long it is the one that Redis finds: walking back from both ends,
    where the bytes differ, it gives up one of `second`, unless that would make it shorter.
    """
    found = bytearray()
    matches: list[_Match] = []
    swapped = len(first) > len(second)
    rows = _rows(second, first) if swapped else _rows(first, second)
    row, grows = -1, b""  # the bits of one row as bytes, which can be looked up at once
    i, j = len(first), len(second)
    start: tuple[int, int] | None = None  # where the present stretch begins
    length = 0
    while i and j:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            found.append(first[i])
            start, length = (i, j), length + 1
            continue
        if start is not None:
            matches.append(_match(start, length))
            start, length = None, 0
        place, bit = (j, i) if swapped else (i, j)
        if place != row:
            row, grows = place, _steps_of(rows, place, len(first if swapped else second), swapped)
        if grows[bit >> 3] >> (bit & 7) & 1:
            i -= 1
        else:
            j -= 1
    if start is not None:
        matches.append(_match(start, length))
    found.reverse()
    return bytes(found), matches


def _match(start: tuple[int, int], length: int) -> _Match:
    i, j = start
    return _Match((i, i + length - 1), (j, j + length - 1))


def _steps_of(rows: list[int], number: int, width: int, swapped: bool) -> bytes:
    """Return of one row where a byte of `first` is to be given up, bit n for n bytes of the long.

    That is where the length grows with the last byte of `second`, so that this one is needed.
    """
    ones = (1 << width) - 1
    along = ~rows[number] & ones
    if not swapped:
        return (along << 1).to_bytes((width >> 3) + 1, "little")
    # `second` lies across the rows. What the length grows by from the row before to this one
    # is the sum of the differences up to there, which are 1, -1, 1, ...: their parity.
    across = along ^ (~rows[number - 1] & ones)
    shift = 1
    while shift < width:
        across ^= across << shift & ones
        shift *= 2
    return (across << 1).to_bytes((width >> 3) + 1, "little")
