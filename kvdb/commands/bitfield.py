"""BITFIELD: a value as a row of integers of any width."""

from __future__ import annotations

from typing import Final, NamedTuple

from kvdb import errors
from kvdb.commands.arguments import integer, parse_integer
from kvdb.commands.bits import bit_offset, refuse_beyond
from kvdb.commands.session import Session
from kvdb.commands.table import FIRST_KEY, GROWS, READ, WRITE, command
from kvdb.errors import CommandError
from kvdb.replies import Reply
from kvdb.store.entry import Key
from kvdb.store.feed import Cause

_INVALID_TYPE: Final = (
    "ERR Invalid bitfield type. Use something like i16 u8. "
    "Note that u64 is not supported but i64 is."
)


class _Field(NamedTuple):
    """Where a number stands in a value, and of which kind it is."""

    signed: bool
    width: int
    offset: int  # in bits

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest number that fit."""
        if self.signed:
            return -(1 << self.width - 1), (1 << self.width - 1) - 1
        return 0, (1 << self.width) - 1

    @property
    def last_bit(self) -> int:
        return self.offset + self.width - 1

    def wrapped(self, number: int) -> int:
        """Return what the lowest bits of a number mean here."""
        number &= (1 << self.width) - 1
        return number - (1 << self.width) if number > self.bounds[1] else number

    def _place(self) -> tuple[int, int, int]:
        """Return the first byte, the one behind the last, and the bits behind the number."""
        end = (self.last_bit >> 3) + 1
        return self.offset >> 3, end, end * 8 - 1 - self.last_bit

    def read(self, value: bytes | bytearray) -> int:
        """Return the number; behind a value's end all is 0."""
        first, end, behind = self._place()
        held = int.from_bytes(value[first:end].ljust(end - first, b"\0"), "big")
        return self.wrapped(held >> behind)

    def write(self, value: bytearray, number: int) -> None:
        """Put a number there; the value is long enough."""
        first, end, behind = self._place()
        mask = (1 << self.width) - 1
        held = int.from_bytes(value[first:end], "big") & ~(mask << behind)
        value[first:end] = (held | (number & mask) << behind).to_bytes(end - first, "big")


class _Step(NamedTuple):
    """One of the operations that a request consists of."""

    name: bytes  # GET, SET or INCRBY
    field: _Field
    number: int = 0
    overflow: bytes = b"WRAP"

    def result(self, before: int) -> int | None:
        """Return what the number becomes; None: it does not fit, and stays as it is."""
        least, greatest = self.field.bounds
        if self.name == b"INCRBY":
            number = before + self.number
        elif self.field.signed:
            number = self.number
        else:
            number = self.number & 2**64 - 1  # as in Redis: -1 is the greatest there is
        if least <= number <= greatest:
            return number
        match self.overflow:
            case b"FAIL":
                return None
            case b"SAT":
                return least if number < least else greatest
            case _:
                return self.field.wrapped(number)


def _field(session: Session, kind: bytes, offset: bytes) -> _Field:
    signed, width = kind[:1] == b"i", parse_integer(kind[1:])
    if kind[:1] not in (b"i", b"u") or width is None or not 1 <= width <= 63 + signed:
        raise CommandError(_INVALID_TYPE)
    # `#0` counts fields of one bit, too: it is their place.
    if width == 1:
        offset = offset.removeprefix(b"#")
    return _Field(signed, width, bit_offset(offset, session, width))


def _parse(session: Session, words: tuple[bytes, ...]) -> list[_Step]:
    steps: list[_Step] = []
    overflow = b"WRAP"
    rest = iter(range(len(words)))
    for place in rest:
        name, left = words[place].upper(), len(words) - place - 1
        needed = {b"GET": 2, b"SET": 3, b"INCRBY": 3, b"OVERFLOW": 1}.get(name)
        if needed is None or left < needed:
            raise CommandError(errors.SYNTAX)
        arguments = [words[next(rest)] for _ in range(needed)]
        if name == b"OVERFLOW":
            overflow = arguments[0].upper()
            if overflow not in (b"WRAP", b"SAT", b"FAIL"):
                raise CommandError("ERR Invalid OVERFLOW type specified")
            continue
        field = _field(session, arguments[0], arguments[1])
        if name == b"GET":
            steps.append(_Step(name, field))
        else:
            refuse_beyond(session, field.last_bit)
            steps.append(_Step(name, field, integer(arguments[2]), overflow))
    return steps


def _perform(value: bytearray, steps: list[_Step]) -> list[int | None]:
    """Carry out all operations in their order; the value is as long as they need it."""
    answers: list[int | None] = []
    for step in steps:
        before = step.field.read(value)
        if step.name == b"GET":
            answers.append(before)
            continue
        number = step.result(before)
        if number is not None:
            step.field.write(value, number)
        fits = number is not None
        answers.append((before if step.name == b"SET" else number) if fits else None)
    return answers


def _read(session: Session, key: Key, steps: list[_Step]) -> Reply:
    value = session.store.get(key) or b""
    return [step.field.read(value) for step in steps]


@command(
    "BITFIELD",
    "key [GET encoding offset | [OVERFLOW WRAP | SAT | FAIL] SET encoding offset value"
    " | INCRBY encoding offset increment] ...",
    WRITE | GROWS,
    "Read, set and increment integers of any width (i5, u12) within a value.",
    group="bitmap",
    keys=FIRST_KEY,
    open_ended=True,
)
def bitfield(session: Session, key: Key, *words: bytes) -> Reply:
    steps = _parse(session, words)
    last_bits = [step.field.last_bit for step in steps if step.name != b"GET"]
    if not last_bits:
        return _read(session, key, steps)
    length = (max(last_bits) >> 3) + 1
    answers: list[int | None] = []

    def changed(old: bytes | None) -> bytes:
        value = bytearray(old or b"")
        value += bytes(max(0, length - len(value)))
        answers.extend(_perform(value, steps))
        return bytes(value)

    session.take_leisure_for(key)
    session.store.update(key, changed, Cause.BITS_SET)
    return answers


@command(
    "BITFIELD_RO",
    "key [GET encoding offset] ...",
    READ,
    "Read integers of any width within a value.",
    group="bitmap",
    keys=FIRST_KEY,
    open_ended=True,
)
def bitfield_ro(session: Session, key: Key, *words: bytes) -> Reply:
    steps = _parse(session, words)
    if any(step.name != b"GET" for step in steps):
        raise CommandError("ERR BITFIELD_RO only supports the GET subcommand")
    return _read(session, key, steps)
