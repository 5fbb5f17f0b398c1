"""What memcached's requests come down to for rules about users, as commands of the table.

    get gets          GET               delete md         DEL
    gat gats          GETEX             touch             EXPIRE
    set replace cas   SET               flush_all         FLUSHALL
    add               SETNX             stats             INFO
    append prepend    APPEND            stats reset       CONFIG RESETSTAT
    incr decr         INCR DECR         stats detail on   CONFIG SET (and off)
    mg                GET; with N SETNX, with T GETEX     lru_crawler, stats cachedump   SCAN
    ms                SET; by its mode APPEND or SETNX    shutdown          SHUTDOWN
    ma                INCR or DECR; with T EXPIRE         me                MEMORY USAGE

version, verbosity, mn and quit are everybody's.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable
from typing import Final

from kvdb.commands.table import needs_nothing

Needs = Callable[[list[bytes]], Iterable[list[bytes]]]


def _for_key(command: bytes, *more: bytes) -> Needs:
    return lambda words: [[command, words[1], *more]] if len(words) > 1 else []


def _for_keys(command: bytes, first: int) -> Needs:
    return lambda words: [[command, key] for key in words[first:]]


def _always(*request: bytes) -> Needs:
    return lambda words: [list(request)]


def _stats(words: list[bytes]) -> list[list[bytes]]:
    match words[1:]:
        case [b"reset", *_]:
            return [[b"CONFIG", b"RESETSTAT"]]
        case [b"detail", b"on" | b"off", *_]:
            return [[b"CONFIG", b"SET", b"", b""]]
        case [b"cachedump", *_]:
            return [[b"SCAN", b"0"]]
        case _:
            return [[b"INFO"]]


def _meta(words: list[bytes]) -> list[list[bytes]]:
    """mg ms md ma me: what is done follows from the flags, each a letter and perhaps a token."""
    name, key, *flags = words if len(words) > 1 else [*words, b""]
    # The length of ms, which stands where the others' flags begin, is digits: no letter.
    given = {flag[:1]: flag[1:] for flag in flags}
    if b"b" in given:
        try:
            key = binascii.a2b_base64(key, strict_mode=True)
        except ValueError:
            return []  # it is no request
    mode = given.get(b"M", b"")[:1].upper()
    match name:
        case b"mg":
            found = [[b"GET", key]]
            found += [[b"GETEX", key]] if b"T" in given else []
            found += [[b"SETNX", key, b""]] if b"N" in given else []
            return found
        case b"ms":
            by_mode = {b"A": b"APPEND", b"P": b"APPEND", b"E": b"SETNX"}
            return [[by_mode.get(mode, b"SET"), key, b""]]
        case b"ma":
            found = [[b"DECR" if mode in (b"D", b"-") else b"INCR", key]]
            return found + ([[b"EXPIRE", key, b"1"]] if b"T" in given else [])
        case b"md":
            return [[b"DEL", key]]
        case _:
            return [[b"MEMORY", b"USAGE", key]]


NEEDS: Final[dict[bytes, Needs]] = {
    **dict.fromkeys((b"get", b"gets"), _for_keys(b"GET", 1)),
    **dict.fromkeys((b"gat", b"gats"), _for_keys(b"GETEX", 2)),
    **dict.fromkeys((b"set", b"replace", b"cas"), _for_key(b"SET", b"")),
    b"add": _for_key(b"SETNX", b""),
    **dict.fromkeys((b"append", b"prepend"), _for_key(b"APPEND", b"")),
    b"incr": _for_key(b"INCR"),
    b"decr": _for_key(b"DECR"),
    b"delete": _for_key(b"DEL"),
    b"touch": _for_key(b"EXPIRE", b"1"),
    b"flush_all": _always(b"FLUSHALL"),
    b"stats": _stats,
    b"lru_crawler": _always(b"SCAN", b"0"),
    b"shutdown": _always(b"SHUTDOWN"),
    **dict.fromkeys((b"mg", b"ms", b"md", b"ma", b"me"), _meta),
    **dict.fromkeys((b"version", b"verbosity", b"mn", b"quit"), needs_nothing),
}
