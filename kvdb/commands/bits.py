"""Commands on the single bits of a value; the first bit is the highest of the first byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import and_, or_, xor
from typing import Final

from kvdb import errors
from kvdb.commands.arguments import integer, parse_integer
from kvdb.commands.session import Session
from kvdb.commands.table import FIRST_KEY, GROWS, READ, WRITE, command
from kvdb.errors import CommandError
from kvdb.replies import Reply
from kvdb.store.entry import Key
from kvdb.store.feed import Cause

BIT_OFFSET: Final = "ERR bit offset is not an integer or out of range"
_NOT_A_BIT: Final = "ERR bit is not an integer or out of range"

_REDIS_LONGEST: Final = 512 * 1024 * 1024
"""Redis's proto-max-bulk-len. Nothing is taken to read zeros behind a value: so whoever asks for
them gets them, up to there, however long values may be here."""


def bit_offset(text: bytes, session: Session, unit: int = 1) -> int:
    """Return a bit's place; of what is `unit` bits wide, a number behind `#` counts those.

    Raises CommandError if it is beyond what may be read.
    """
    if unit > 1 and text.startswith(b"#"):
        text = text[1:]
    else:
        unit = 1
    number = parse_integer(text)
    most = max(_REDIS_LONGEST, session.instance.config.max_value_bytes)
    if number is None or not 0 <= number * unit < most * 8:
        raise CommandError(BIT_OFFSET)
    return number * unit


def refuse_beyond(session: Session, last_bit: int) -> None:
    """Raise CommandError if a value that has this bit would be longer than one may be."""
    if last_bit >> 3 >= session.instance.config.max_value_bytes:
        raise CommandError(BIT_OFFSET)


@command(
    "SETBIT",
    "key offset value",
    WRITE | GROWS,
    "Set one bit of a value to 0 or 1; return what it was.",
    group="bitmap",
    keys=FIRST_KEY,
)
def setbit(session: Session, key: Key, offset: bytes, value: bytes) -> Reply:
    place = bit_offset(offset, session)
    refuse_beyond(session, place)
    if value not in (b"0", b"1"):
        raise CommandError(_NOT_A_BIT)
    index, mask = place >> 3, 0x80 >> (place & 7)
    before = 0

    def changed(old: bytes | None) -> bytes:
        nonlocal before
        old = old or b""
        byte = old[index] if index < len(old) else 0
        before = int(bool(byte & mask))
        if index < len(old) and before == int(value):
            return old
        byte = byte | mask if value == b"1" else byte & ~mask
        return old[:index].ljust(index, b"\0") + bytes((byte,)) + old[index + 1 :]

    session.take_leisure_for(key)
    session.store.update(key, changed, Cause.BITS_SET)
    return before


@command("GETBIT", "key offset", READ, "Return one bit of a value.", group="bitmap", keys=FIRST_KEY)
def getbit(session: Session, key: Key, offset: bytes) -> Reply:
    place = bit_offset(offset, session)
    value = session.store.get(key) or b""
    index = place >> 3
    return value[index] >> (7 - (place & 7)) & 1 if index < len(value) else 0


# --- counting and finding -----------------------------------------------------------------


class _Range:
    """The bits of a value that a command is about; both ends count, as in GETRANGE."""

    def __init__(self, start: bytes, end: bytes, unit: bytes = b"BYTE") -> None:
        """Raises CommandError if these are not numbers and a unit."""
        self._start, self._end = integer(start), integer(end)
        if unit.upper() not in (b"BYTE", b"BIT"):
            raise CommandError(errors.SYNTAX)
        self._in_bits = unit.upper() == b"BIT"

    def within(self, value: bytes) -> tuple[int, int]:
        """Return the first and the last bit that are meant; none if the first is the greater."""
        start, end = self._start, self._end
        length = len(value) * 8 if self._in_bits else len(value)
        if start < 0 and end < 0 and start > end:
            return 0, -1
        start = max(0, length + start if start < 0 else start)
        end = min(length - 1, max(0, length + end if end < 0 else end))
        if start > end:
            return 0, -1
        return (start, end) if self._in_bits else (start * 8, end * 8 + 7)


def _part(value: bytes, first: int, last: int, filler: int) -> bytes:
    """Return the bytes with these bits; others in them are those of `filler`."""
    part = bytearray(value[first >> 3 : (last >> 3) + 1])
    if part:
        kept = 0xFF >> (first & 7)
        part[0] = part[0] & kept | filler & ~kept & 0xFF
        kept = 0xFF << (7 - (last & 7)) & 0xFF
        part[-1] = part[-1] & kept | filler & ~kept & 0xFF
    return bytes(part)


@command(
    "BITCOUNT",
    "key [start end [BYTE | BIT]]",
    READ,
    "Count the bits of a value, or of a part of it, that are 1.",
    group="bitmap",
    keys=FIRST_KEY,
    open_ended=True,
)
def bitcount(session: Session, key: Key, *bounds: bytes) -> Reply:
    if len(bounds) not in (0, 2, 3):
        raise CommandError(errors.SYNTAX)
    wanted = _Range(*bounds) if bounds else None
    session.take_leisure_for(key)
    value = session.store.get(key) or b""
    if wanted is not None:
        value = _part(value, *wanted.within(value), filler=0)
    return int.from_bytes(value, "little").bit_count()


@command(
    "BITPOS",
    "key bit [start [end [BYTE | BIT]]]",
    READ,
    "Find the first bit of a value, or of a part of it, that is 0 or 1; -1: none.",
    group="bitmap",
    keys=FIRST_KEY,
    open_ended=True,
)
def bitpos(session: Session, key: Key, bit: bytes, *bounds: bytes) -> Reply:
    wanted = integer(bit)
    if wanted not in (0, 1):
        raise CommandError("ERR The bit argument must be 1 or 0.")
    if len(bounds) > 3:
        raise CommandError(errors.SYNTAX)
    ends = bounds[1:2] or (b"-1",)
    within = _Range(*(bounds[:1] or (b"0",)), *ends, *bounds[2:])
    session.take_leisure_for(key)
    value = session.store.get(key)
    if value is None:
        return -1 if wanted else 0
    first, last = within.within(value)
    if first > last:
        return -1
    others = 0x00 if wanted else 0xFF
    part = _part(value, first, last, filler=others)
    skipped = len(part) - len(part.lstrip(bytes((others,))))
    if skipped < len(part):
        byte = part[skipped] ^ others
        return (first & ~7) + 8 * skipped + 8 - byte.bit_length()
    # Behind a value all is 0: so the first 0 of one that is all 1, unless its end was named.
    return len(value) * 8 if not wanted and len(bounds) < 2 else -1


# --- BITOP --------------------------------------------------------------------------------

_QUICK: Final = 64 * 1024  # bytes of values: about 100 microseconds
_ATTEMPTS: Final = 2  # to compute while others may write, before they have to wait

_Operation = Callable[[list[int], int], int]
"""Makes one number of the sources' numbers and of that whose bits are all 1."""


def _any_of(numbers: Sequence[int]) -> int:
    return reduce(or_, numbers, 0)


def _exactly_one(numbers: list[int], ones: int) -> int:
    once = more = 0
    for number in numbers:
        more |= once & number
        once |= number
    return once & ~more


_OPERATIONS: Final[dict[bytes, _Operation]] = {
    b"AND": lambda numbers, ones: reduce(and_, numbers),
    b"OR": lambda numbers, ones: _any_of(numbers),
    b"XOR": lambda numbers, ones: reduce(xor, numbers),
    b"NOT": lambda numbers, ones: numbers[0] ^ ones,
    b"DIFF": lambda numbers, ones: numbers[0] & ~_any_of(numbers[1:]),
    b"DIFF1": lambda numbers, ones: ~numbers[0] & _any_of(numbers[1:]),
    b"ANDOR": lambda numbers, ones: numbers[0] & _any_of(numbers[1:]),
    b"ONE": _exactly_one,
}


def _combined(values: list[bytes | None], operation: _Operation) -> bytes:
    """Return the result; shorter sources count as if zeros followed. One big number each."""
    length = max(len(value or b"") for value in values)
    numbers = [int.from_bytes(value or b"", "little") for value in values]
    return operation(numbers, (1 << 8 * length) - 1).to_bytes(length, "little")


@command(
    "BITOP",
    "operation destination key [key ...]",
    WRITE | GROWS,
    "Combine the bits of values (AND, OR, XOR, NOT, DIFF, DIFF1, ANDOR, ONE) into another one.",
    group="bitmap",
    keys=(2, -1, 1),
)
def bitop(session: Session, name: bytes, destination: Key, *sources: Key) -> Reply:
    operation = _OPERATIONS.get(name.upper())
    if operation is None:
        raise CommandError(errors.SYNTAX)
    if name.upper() == b"NOT" and len(sources) != 1:
        raise CommandError("ERR BITOP NOT must be called with a single source key.")
    if name.upper() in (b"DIFF", b"DIFF1", b"ANDOR") and len(sources) < 2:
        shown = name.upper().decode()
        raise CommandError(f"ERR BITOP {shown} must be called with at least two source keys.")
    store = session.store
    is_long = sum(store.cost(key) or 0 for key in sources) > _QUICK
    session.take_leisure(is_long)
    for _ in range(_ATTEMPTS if is_long else 0):
        # Others go on while long values are worked on: what was read has to be there still.
        values = store.get_many(sources)
        result = _combined(values, operation)
        with store.atomic():
            entries = [store.entry(key) for key in sources]
            if all(
                value is (entry and entry.value)
                for value, entry in zip(values, entries, strict=True)
            ):
                return _keep(session, destination, result)
    with store.atomic():
        return _keep(session, destination, _combined(store.get_many(sources), operation))


def _keep(session: Session, destination: Key, result: bytes) -> int:
    """Store the result, without a deadline; an empty one deletes the key, as in Redis."""
    if result:
        session.store.set(destination, result)
    else:
        session.store.delete(destination)
    return len(result)
