"""INCREX: a counter within bounds, and how long it lives, in one step (Redis 8.8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any, Final

from kvdb import errors
from kvdb.commands.arguments import (
    FLOAT_CONTEXT,
    INT64_MAX,
    INT64_MIN,
    LARGEST_FLOAT,
    UNITS,
    decimal_number,
    is_infinity,
    parse_integer,
    show_decimal,
)
from kvdb.commands.session import Session
from kvdb.commands.set_options import SetOptions
from kvdb.commands.table import FIRST_KEY, GROWS, WRITE, command
from kvdb.errors import CommandError
from kvdb.replies import Reply
from kvdb.store.entry import Entry, Key
from kvdb.store.feed import Cause

_Number = Any
"""An int or, with BYFLOAT, a Decimal: they are not mixed."""

_WITH_NUMBER: Final = frozenset((b"BYINT", b"BYFLOAT", b"LBOUND", b"UBOUND", *UNITS))
_FLAGS: Final = frozenset((b"SATURATE", b"PERSIST", b"ENX", b"NX", b"XX"))


@dataclass
class _Increment:
    """What was asked for, and the arithmetic of it: integers, or with BYFLOAT decimals."""

    is_float: bool = False
    amount: _Number = 1
    least: _Number = INT64_MIN
    most: _Number = INT64_MAX
    saturate: bool = False
    only_new: bool = False  # a deadline only for a key that has none (ENX)
    options: SetOptions = field(default_factory=SetOptions)  # condition and timing

    def number(self, text: bytes) -> _Number:
        """Return what a key holds."""
        if not self.is_float:
            number = parse_integer(text)
            if number is None:
                raise CommandError(errors.NOT_AN_INTEGER)
            return number
        if is_infinity(text):
            raise CommandError("ERR value cannot be Infinity")
        return decimal_number(text)

    def result(self, before: _Number) -> _Number | None:
        """Return what becomes of a number; None: it would leave the bounds, and stays as it is."""
        with localcontext(FLOAT_CONTEXT):
            after = before + self.amount
        if not self.saturate and not self.least <= after <= self.most:
            return None
        return max(self.least, min(self.most, after))

    def applied(self, before: _Number, after: _Number) -> _Number:
        """Return by how much a number was changed. Raises CommandError if that is too much."""
        with localcontext(FLOAT_CONTEXT):
            change = after - before
        if self.is_float and abs(change) > LARGEST_FLOAT:
            raise CommandError("ERR applied increment would be Infinity")
        if not self.is_float and not INT64_MIN <= change <= INT64_MAX:
            raise CommandError("ERR applied increment would overflow")
        return change

    def shown(self, number: _Number) -> bytes:
        """Return a number as it is stored."""
        return show_decimal(number) if isinstance(number, Decimal) else b"%d" % number

    def reply(self, number: _Number, version: int) -> Reply:
        """Return a number as it is answered."""
        if not self.is_float:
            return number
        return float(number) if version == 3 else self.shown(number)


def _parse(words: tuple[bytes, ...]) -> _Increment:
    """Return what the words mean. Each may stand there once, in any order."""
    given: dict[bytes, bytes] = {}
    rest = iter(words)
    for word in rest:
        name = word.upper()
        number = _value_of(name, rest)
        if number is None or name in given:
            raise CommandError(errors.SYNTAX)
        given[name] = number
    timings = [name for name in given if name in UNITS or name == b"PERSIST"]
    exclusive = (timings, given.keys() & {b"NX", b"XX"}, given.keys() & {b"BYINT", b"BYFLOAT"},
                 given.keys() & {b"PERSIST", b"ENX"})  # fmt: skip
    if any(len(names) > 1 for names in exclusive):
        raise CommandError(errors.SYNTAX)
    if b"ENX" in given and not timings:
        raise CommandError("ERR ENX flag requires an expiration")
    timing = timings[0] if timings else b""
    condition = b"NX" if b"NX" in given else b"XX" if b"XX" in given else b""
    asked = _Increment(
        is_float=b"BYFLOAT" in given, saturate=b"SATURATE" in given, only_new=b"ENX" in given,
        options=SetOptions(condition, timing=timing, number=given.get(timing, b"")),
    )  # fmt: skip
    if asked.is_float:
        _take_decimals(asked, given)
    else:
        _take_integers(asked, given)
    if asked.least > asked.most:
        raise CommandError("ERR LBOUND can't be greater than UBOUND")
    return asked


def _value_of(name: bytes, rest: Iterator[bytes]) -> bytes | None:
    """Return what stands behind an option, b"" if nothing belongs there, None if it is wrong."""
    if name in _WITH_NUMBER:
        return next(rest, None)
    return b"" if name in _FLAGS else None


def _take_integers(asked: _Increment, given: dict[bytes, bytes]) -> None:
    def taken(name: bytes, shown: str, default: int) -> int:
        number = parse_integer(given[name]) if name in given else default
        if number is None:
            raise CommandError(f"ERR {shown} is not an integer or out of range")
        return number

    asked.amount = taken(b"BYINT", "Increment", 1)
    asked.least = taken(b"LBOUND", "LBOUND", INT64_MIN)
    asked.most = taken(b"UBOUND", "UBOUND", INT64_MAX)


def _take_decimals(asked: _Increment, given: dict[bytes, bytes]) -> None:
    def taken(name: bytes, shown: str, default: Decimal) -> Decimal:
        text = given.get(name)
        if text is None:
            return default
        if is_infinity(text):
            if name == b"BYFLOAT":
                raise CommandError("ERR BYFLOAT increment cannot be Infinity")
            return Decimal("-Infinity" if text.startswith(b"-") else "Infinity")
        try:
            return decimal_number(text)
        except CommandError:
            raise CommandError(f"ERR {shown} is not a valid float") from None

    asked.amount = taken(b"BYFLOAT", "Increment", Decimal(1))
    asked.least = taken(b"LBOUND", "LBOUND", -LARGEST_FLOAT)
    asked.most = taken(b"UBOUND", "UBOUND", LARGEST_FLOAT)


@command(
    "INCREX",
    "key [BYINT increment | BYFLOAT increment] [LBOUND bound] [UBOUND bound] [SATURATE]"
    " [NX | XX] [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds"
    " | PERSIST] [ENX]",
    WRITE | GROWS,
    "Add to a counter within bounds; return its value and what was added.",
    group="string",
    keys=FIRST_KEY,
    open_ended=True,
)
def increx(session: Session, key: Key, *words: bytes) -> Reply:
    asked = _parse(words)
    store = session.store
    with store.atomic():
        expires_at = asked.options.expires_at(store.now(), "increx")
        entry = store.entry(key)
        if not asked.options.is_met_by(entry):
            return None
        before = asked.number(entry.value if entry else b"0")
        after = asked.result(before)
        zero = Decimal(0) if asked.is_float else 0
        if after is None:
            return [asked.reply(number, session.version) for number in (before, zero)]
        change = asked.applied(before, after)
        _write(session, key, entry, asked, asked.shown(after), expires_at)
        return [asked.reply(number, session.version) for number in (after, change)]


def _write(
    session: Session,
    key: Key,
    entry: Entry | None,
    asked: _Increment,
    value: bytes,
    expires_at: float | None,
) -> None:
    """Store the number, and then its deadline, which are two events to those who listen."""
    store = session.store
    cause = Cause.INCREMENTED_BY_FLOAT if asked.is_float else Cause.INCREMENTED
    store.update(key, lambda old: value, cause)
    current = entry.expires_at if entry else None
    if asked.options.timing == b"PERSIST":
        if current is not None:
            store.set_deadline(key, None)
    elif expires_at is not None and not (asked.only_new and current is not None):
        store.set_deadline(key, expires_at)
