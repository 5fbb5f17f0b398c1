"""RESP requests of the plain form, many at a time: the fast way beside `resp.RequestParser`.

What a client sends usually arrives whole, in short arguments. Then one split at the line ends
finds every argument, and a look into a table tells whether the length before it is right.
Whatever is not of that form is left to the parser, which reads on where this one stopped: an
argument that is long, holds a CRLF or is not whole yet, a number that is badly written, another
dialect. So the two always give the same answer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LONGEST_PLAIN: Final = 2047
"""Bytes of a plain argument; above, copying costs more than parsing."""

SHORTEST_RUN: Final = 20
"""Parts that make it worth while to look for a run (measured: below, it costs more)."""

_CRLF: Final = b"\r\n"
_LENGTHS: Final = tuple(b"$%d" % length for length in range(LONGEST_PLAIN + 1))
_COUNTS: Final = {b"*%d" % count: count for count in range(1, 1025)}


class Run(NamedTuple):
    """Requests that follow each other with the same name and the same number of arguments."""

    name: bytes
    columns: list[list[bytes]]  # the first arguments of all requests, the second ones, ...


def split_plain(data: bytes) -> list[bytes]:
    """Split what has arrived into parts, at its line ends.

    If the first of it is a long argument, it is not searched for line ends (that would take 50
    microseconds for 60 KB): then all of it is one part.
    """
    if len(data) > 2 * LONGEST_PLAIN and data.count(b"\n", 0, 2 * LONGEST_PLAIN) < 12:
        return [data]
    return data.split(_CRLF)


def join_plain(parts: list[bytes]) -> bytes:
    """Return what split_plain() has split: the bytes that are left."""
    return _CRLF.join(parts)


def next_request(parts: list[bytes], start: int) -> list[bytes] | None:
    """Return the request at `start`; None if it is not plain, or not whole.

    It takes one part for the number of its arguments and two for each of them.
    """
    count = _COUNTS.get(parts[start])
    if count is None:
        return None
    end = start + 1 + 2 * count
    if end >= len(parts):  # the last part is what follows the last line end
        return None
    arguments = parts[start + 2 : end : 2]
    place = start + 1
    for argument in arguments:
        if len(argument) > LONGEST_PLAIN or parts[place] != _LENGTHS[len(argument)]:
            return None
        place += 2
    return arguments


def find_run(parts: list[bytes]) -> tuple[Run, int] | None:
    """Return the run that all these parts are, and where it ends.

    A request that is not whole may follow it, nothing else.
    """
    count = _COUNTS.get(parts[0], 0)
    width = 2 * count + 1
    requests = (len(parts) - 1) // width
    end = requests * width
    names = parts[2:end:width]
    if count < 2 or requests < 2:
        return None
    if parts[0:end:width].count(parts[0]) < requests or names.count(names[0]) < requests:
        return None
    columns = []
    for first in range(2, width, 2):
        column = parts[first:end:width]
        if max(map(len, column)) > LONGEST_PLAIN:
            return None
        if parts[first - 1 : end : width] != [_LENGTHS[len(argument)] for argument in column]:
            return None
        columns.append(column)
    return Run(names[0], columns[1:]), end
