"""Files in Redis's format: a dump.rdb, and what a primary sends to its replicas.

    REDIS0009 | FA name value ... | FE database | entries ... | FF | CRC-64, 8 bytes

and an entry is `FC milliseconds, 8 bytes | type | key | value`, of which the first is left out
where there is no deadline. The checksum may be left out, too: eight zeros.

Other types than strings are passed over, and counted by what they are. Sources: the format's
description in redis-rdb-tools and `rdb.h` of Redis 8 and Valkey 9; read and written with both.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from kvdb.rdb.crc64 import crc64
from kvdb.rdb.strings import VERSION, BadFormat, Source, TooLong, encode_length, encode_string
from kvdb.store.entry import DATABASES, Entry, Key, key_in, split_key

_STRING: Final = 0
_AUX, _SIZES, _SELECT, _END = 0xFA, 0xFB, 0xFE, 0xFF
_MILLISECONDS, _SECONDS = 0xFC, 0xFD
_IDLE, _FREQUENCY, _MODULE_DATA, _FUNCTION, _SLOT = 0xF8, 0xF9, 0xF7, 0xF5, 0xF4

_NAMES: Final = {
    1: "list", 2: "set", 3: "sorted set", 4: "hash", 5: "sorted set", 7: "value of a module",
    9: "hash", 10: "list", 11: "set", 12: "sorted set", 13: "hash", 14: "list", 15: "stream",
    16: "hash", 17: "sorted set", 18: "list", 19: "stream", 20: "set", 21: "stream",
    22: "hash", 24: "hash", 25: "hash",
}  # fmt: skip
_ONE_STRING: Final = (9, 10, 11, 12, 13, 16, 17, 20)  # types that are packed into one
_STRINGS_PER_ITEM: Final = {1: 1, 2: 1, 4: 2, 14: 1}
_SCORES: Final = {253: 0, 254: 0, 255: 0}  # not a number, and the two infinities: no text follows

_TOGETHER: Final = 256 * 1024  # bytes


class NotRdb(ValueError):
    """The file is none of Redis's, or damaged, or of a kind that cannot be read; the text says which."""


def is_rdb(path: Path) -> bool:
    """Tell whether a file says at its beginning that it is one."""
    with open(path, "rb") as file:
        return file.read(6).startswith((b"REDIS0", b"VALKEY"))


# --- reading ------------------------------------------------------------------------------


def check_checksum(file: BinaryIO) -> None:
    """Read a file as a whole, and raise NotRdb if its checksum says that it is damaged.

    50 ms per megabyte. A file without a checksum passes.
    """
    checksum, behind = 0, b""
    while piece := file.read(_TOGETHER):
        behind += piece
        checksum = crc64(memoryview(behind)[:-8], checksum)
        behind = behind[-8:]
    expected = int.from_bytes(behind, "little")
    if expected and expected != checksum:
        raise NotRdb("its checksum does not fit: it is damaged, or has been cut short")


class RdbReader:
    """Reads the string keys of a file; counts the others."""

    def __init__(self, file: BinaryIO, longest: int) -> None:
        """`longest`: the longest value, in bytes, that is read."""
        self._source = Source(file, longest)
        self.others: Counter[str] = Counter()
        """How many keys of which other type there were."""

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        """Yield all string keys. Raises NotRdb."""
        try:
            self._is_valkey = self._header()
            yield from self._entries()
        except BadFormat:
            raise NotRdb("it ends too early, or is damaged") from None
        except TooLong:
            raise NotRdb("it holds a value that is too long (--max-value-mb)") from None

    def _header(self) -> bool:
        head = self._source.take(9)
        for magic in (b"REDIS", b"VALKEY"):
            if head.startswith(magic) and head[len(magic) :].isdigit():
                return magic == b"VALKEY"
        raise NotRdb("it is no file of Redis or Valkey")

    def _entries(self) -> Iterator[tuple[Key, Entry]]:
        source, db, expires_at = self._source, 0, None
        while (kind := source.take(1)[0]) != _END:
            if kind == _STRING:
                key, value = source.string(), source.string()
                yield key_in(db, key), Entry(value, expires_at)
                expires_at = None
            elif kind == _MILLISECONDS:
                expires_at = int.from_bytes(source.take(8), "little", signed=True) / 1000
            elif kind == _SECONDS:
                expires_at = float(int.from_bytes(source.take(4), "little", signed=True))
            elif kind == _SELECT:
                db = source.length()
                if db >= DATABASES:
                    raise NotRdb(f"it has a database {db}, and here they are 0 to {DATABASES - 1}")
            elif kind in _NAMES:
                source.skip_string()  # the key
                self._skip_value(kind)
                self.others[_NAMES[kind]] += 1
                expires_at = None
            else:
                self._skip_remark(kind)

    def _skip_remark(self, kind: int) -> None:
        """Pass over what says something about the file, or about the next key's use."""
        source = self._source
        if kind == _AUX:
            source.skip_string()
            source.skip_string()
        elif kind == _SIZES:
            source.length()
            source.length()
        elif kind == _IDLE:
            source.length()
        elif kind == _FREQUENCY:
            source.skip(1)
        elif kind == _FUNCTION:
            source.skip_string()
        elif kind == _SLOT:
            for _ in range(3):
                source.length()
        elif kind == _MODULE_DATA:
            source.length()
            self._skip_module()
        else:
            raise NotRdb(f"it holds something that this kvdb does not know (type {kind})")

    def _skip_value(self, kind: int) -> None:
        source = self._source
        if kind in _ONE_STRING:
            source.skip_string()
        elif kind in _STRINGS_PER_ITEM:
            for _ in range(_STRINGS_PER_ITEM[kind] * source.length()):
                source.skip_string()
        elif kind in (3, 5):
            for _ in range(source.length()):
                source.skip_string()
                source.skip(8 if kind == 5 else self._score_length())
        elif kind == 7:
            source.length()
            self._skip_module()
        elif kind == 18:
            for _ in range(source.length()):
                source.length()
                source.skip_string()
        elif kind in (15, 19, 21):
            self._skip_stream(kind)
        else:
            self._skip_expiring_hash(kind)

    def _score_length(self) -> int:
        length = self._source.take(1)[0]
        return _SCORES.get(length, length)

    def _skip_expiring_hash(self, kind: int) -> None:
        """Hashes whose fields expire: 22 is Valkey 9's, 24 and 25 are Redis 7.4's."""
        source = self._source
        if kind == 22 and not self._is_valkey:
            raise NotRdb("it was written by a version of Redis that was never released")
        if kind != 22:
            source.skip(8)  # when the first one expires
        if kind == 25:
            source.skip_string()
            return
        for _ in range(source.length()):
            if kind == 24:
                source.length()
            source.skip_string()
            source.skip_string()
            if kind == 22:
                source.skip(8)

    def _skip_module(self) -> None:
        """Pass over what a module has written: each part says of what kind it is."""
        source = self._source
        while kind := source.length():
            if kind in (1, 2):
                source.length()
            elif kind in (3, 4):
                source.skip(4 if kind == 3 else 8)
            elif kind == 5:
                source.skip_string()
            else:
                raise BadFormat

    def _skip_stream(self, kind: int) -> None:
        source = self._source
        for _ in range(2 * source.length()):
            source.skip_string()
        for _ in range(3 if kind == 15 else 8):  # how many, the last one; and more about it
            source.length()
        for _ in range(source.length()):  # consumer groups
            source.skip_string()
            for _ in range(2 if kind == 15 else 3):
                source.length()
            for _ in range(source.length()):  # what is pending
                source.skip(16 + 8)
                source.length()
            for _ in range(source.length()):  # consumers
                source.skip_string()
                source.skip(16 if kind == 21 else 8)
                source.skip(16 * source.length())


# --- writing ------------------------------------------------------------------------------


def header() -> bytes:
    """Return what a file begins with."""
    return b"REDIS%04d" % VERSION


def encode_entry(name: bytes, value: bytes, expires_at: float | None) -> bytes:
    """Return an entry; the name of its key is without the database."""
    text = b"\0" + encode_string(name) + encode_string(value)
    if expires_at is None:
        return text
    return (
        struct.pack("<Bq", _MILLISECONDS, min(max(round(expires_at * 1000), 1), 2**63 - 1)) + text
    )


def encode_select(db: int) -> bytes:
    """Return what says that the next entries are of this database."""
    return bytes((_SELECT,)) + encode_length(db)


END: Final = bytes((_END,))
"""What stands behind the last entry, before the checksum."""


class RdbWriter:
    """Writes a file with its checksum, which end() adds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pieces = [header(), encode_select(0)]
        self._size = self._checksum = self._db = 0

    def add(self, key: Key, entry: Entry) -> None:
        """Write an entry."""
        db, name = split_key(key)
        if db != self._db:
            self._pieces.append(encode_select(db))
            self._db = db
        self._pieces.append(encode_entry(name, entry.value, entry.expires_at))
        self._size += len(entry.value) + len(name)
        if self._size > _TOGETHER:
            self._write()

    def end(self) -> None:
        """Write what stands behind the last entry."""
        self._pieces.append(END)
        self._write()
        self._file.write(self._checksum.to_bytes(8, "little"))

    def _write(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._checksum = crc64(data, self._checksum)
        self._file.write(data)
