"""Times as Python has them, in the words of a request."""

from __future__ import annotations

import datetime

Duration = float | datetime.timedelta
"""Seconds, or a timedelta."""

Expiry = float | datetime.timedelta | datetime.datetime
"""When a key goes: after so many seconds, after a timedelta, or at a moment. A datetime without a
zone is local time."""


def seconds_of(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.total_seconds() if isinstance(duration, datetime.timedelta) else duration


def milliseconds(duration: Duration) -> bytes:
    """Return a duration in whole milliseconds: at least one, if it is not 0 or less."""
    number = seconds_of(duration) * 1000
    return b"%d" % (max(1, round(number)) if number > 0 else round(number))


def expiry_words(expiry: Expiry | None) -> list[bytes]:
    """Return the option of SET and its like that stands for a time; none for None."""
    if expiry is None:
        return []
    if isinstance(expiry, datetime.datetime):
        return [b"PXAT", _moment(expiry)]
    return [b"PX", milliseconds(expiry)]


def expire_request(name: bytes, expiry: Expiry) -> list[bytes]:
    """Return the request that gives a key this time to live."""
    if isinstance(expiry, datetime.datetime):
        return [b"PEXPIREAT", name, _moment(expiry)]
    return [b"PEXPIRE", name, milliseconds(expiry)]


def _moment(moment: datetime.datetime) -> bytes:
    return b"%d" % round(moment.timestamp() * 1000)
