"""The commands, declared once: see `command`."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, Literal

from kvdb.client.command import Command, method
from kvdb.client.serializers import Serializer, V
from kvdb.client.times import Duration, Expiry, expire_request, expiry_words, milliseconds

Name = str | bytes
"""A key. Text is sent as UTF-8."""

Word = str | bytes | int | float
"""A word of a request."""

_SPECIAL: Final = re.compile(rb"[\\*?\[\]^-]")  # in a glob pattern

COMPARE_AND_SET: Final = b"""
if redis.call('get', KEYS[1]) ~= ARGV[1] then return false end
return redis.call('set', KEYS[1], ARGV[2], unpack(ARGV, 3))
"""

COMPARE_AND_DELETE: Final = b"""
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('del', KEYS[1])
"""


def encode_name(name: Name) -> bytes:
    """Return a key as it is sent."""
    return name if isinstance(name, bytes) else name.encode()


def decode_name(name: bytes) -> Name:
    """Return a key as a program has it: text, or bytes if it is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def glob_of(prefix: bytes, pattern: Name) -> bytes:
    """Return a glob pattern behind a prefix that is none."""
    return _SPECIAL.sub(rb"\\\g<0>", prefix) + encode_name(pattern)


def encode_word(word: Word) -> bytes:
    """Return a word as it is sent."""
    if isinstance(word, bytes):
        return word
    return word.encode() if isinstance(word, str) else repr(word).encode()


def _integer(number: int) -> bytes:
    return b"%d" % operator.index(number)  # and not 1 for 1.5


def _nothing(reply: Any) -> None:
    return None


def _is_done(reply: Any) -> bool:
    return reply is not None


def _same(reply: Any) -> Any:
    return reply


def _seconds_left(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


def _known(result: V) -> Command[V]:
    """Return a command that needs no server."""
    return Command([], lambda reply: result)


class Commands(Generic[V]):
    """The commands of `Client`, `AsyncClient` and their pipelines; `V` is what values are.

    What is sent again after a broken connection, so that it may be carried out twice: all but
    incr, decr, incr_float, append and the like, publish, rename, command and eval.
    """

    _serializer: Serializer[V]
    _prefix: bytes = b""

    def _name(self, name: Name) -> bytes:
        return self._prefix + (name if isinstance(name, bytes) else name.encode())

    def _load(self, data: bytes | None) -> V | None:
        return None if data is None else self._serializer.decode(data)

    def _load_many(self, values: list[bytes | None]) -> list[V | None]:
        return [self._load(value) for value in values]

    # --- values ------------------------------------------------------------------------------

    @method
    def get(self, name: Name, default: V | None = None) -> Command[V | None]:
        """Return the value of a key, or `default` if there is none."""
        decode = self._serializer.decode
        return Command(
            [b"GET", self._name(name)], lambda data: default if data is None else decode(data)
        )

    @method
    def set(
        self,
        name: Name,
        value: Any,
        *,
        ttl: Expiry | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
    ) -> Command[bool]:
        """Set the value of a key, for a time if `ttl` is given; tell whether it was set.

        `keep_ttl`: its deadline stays. `if_absent`, `if_present`: only if there is no such key, or
        if there is one. Sent again, a set with `if_absent` may find what it has set itself.
        """
        request = [b"SET", self._name(name), self._serializer.encode(value)]
        if ttl is not None:
            request += expiry_words(ttl)
        if keep_ttl:
            request.append(b"KEEPTTL")
        if if_absent:
            request.append(b"NX")
        if if_present:
            request.append(b"XX")
        return Command(request, _is_done, not if_absent)

    @method
    def set_if_equal(
        self, name: Name, expected: Any, value: Any, *, ttl: Expiry | None = None
    ) -> Command[bool]:
        """Set the value of a key if it holds `expected` now; tell whether it was set.

        What the serializer makes of both is compared, byte by byte.
        """
        words = [self._serializer.encode(each) for each in (expected, value)] + expiry_words(ttl)
        request = [b"EVAL", COMPARE_AND_SET, b"1", self._name(name), *words]
        return Command(request, _is_done, False)

    @method
    def get_and_set(
        self, name: Name, value: Any, *, ttl: Expiry | None = None, keep_ttl: bool = False
    ) -> Command[V | None]:
        """Set the value of a key; return what it held before."""
        request = [b"SET", self._name(name), self._serializer.encode(value), b"GET"]
        request += expiry_words(ttl) + ([b"KEEPTTL"] if keep_ttl else [])
        return Command(request, self._load, False)

    @method
    def get_and_expire(self, name: Name, ttl: Expiry | None) -> Command[V | None]:
        """Return the value of a key, and give it a time to live; None: it never expires."""
        words = [b"PERSIST"] if ttl is None else expiry_words(ttl)
        return Command([b"GETEX", self._name(name), *words], self._load)

    @method
    def get_and_delete(self, name: Name) -> Command[V | None]:
        """Return the value of a key, and delete it."""
        return Command([b"GETDEL", self._name(name)], self._load, False)

    @method
    def mget(self, names: Iterable[Name]) -> Command[list[V | None]]:
        """Return the values of these keys in their order, None for each that is missing."""
        request = [b"MGET", *map(self._name, names)]
        return Command(request, self._load_many) if request[1:] else _known([])

    @method
    def get_many(self, names: Iterable[Name]) -> Command[dict[Name, V]]:
        """Return the values of these keys by their names, without those that are missing."""
        wanted = list(names)
        decode = self._serializer.decode

        def result(values: list[bytes | None]) -> dict[Name, V]:
            found = zip(wanted, values, strict=True)
            return {name: decode(data) for name, data in found if data is not None}

        return Command([b"MGET", *map(self._name, wanted)], result) if wanted else _known({})

    @method
    def mset(self, values: Mapping[Name, Any], *, if_absent: bool = False) -> Command[bool]:
        """Set several values in one step; tell whether they were set.

        `if_absent`: only if there is none of these keys.
        """
        request = [b"MSETNX" if if_absent else b"MSET"]
        for name, value in values.items():
            request += [self._name(name), self._serializer.encode(value)]
        if not values:
            return _known(True)
        return Command(request, lambda reply: reply != 0, not if_absent)

    @method
    def compare_and_delete(self, name: Name, expected: Any) -> Command[bool]:
        """Delete a key if it holds `expected`; tell whether it was deleted.

        What the serializer makes of both is compared, byte by byte.
        """
        data = self._serializer.encode(expected)
        return Command([b"EVAL", COMPARE_AND_DELETE, b"1", self._name(name), data], bool, False)

    # --- counters ----------------------------------------------------------------------------

    @method
    def incr(self, name: Name, amount: int = 1) -> Command[int]:
        """Add to a counter (a missing one counts as 0) and return what it is then."""
        return Command([b"INCRBY", self._name(name), _integer(amount)], int, False)

    @method
    def decr(self, name: Name, amount: int = 1) -> Command[int]:
        """Subtract from a counter and return what it is then."""
        return Command([b"DECRBY", self._name(name), _integer(amount)], int, False)

    @method
    def incr_float(self, name: Name, amount: float) -> Command[float]:
        """Add to a number with a fraction and return what it is then."""
        return Command([b"INCRBYFLOAT", self._name(name), repr(amount).encode()], float, False)

    @method
    def get_int(self, name: Name) -> Command[int | None]:
        """Return a counter, whatever the serializer; None if there is none."""
        return Command([b"GET", self._name(name)], lambda data: None if data is None else int(data))

    # --- bytes and bits ----------------------------------------------------------------------

    @method
    def append(self, name: Name, data: bytes) -> Command[int]:
        """Append bytes to a value; return how long it is then."""
        return Command([b"APPEND", self._name(name), data], int, False)

    @method
    def strlen(self, name: Name) -> Command[int]:
        """Return how many bytes a value has, 0 if there is none."""
        return Command([b"STRLEN", self._name(name)], int)

    @method
    def getrange(self, name: Name, start: int, end: int) -> Command[bytes]:
        """Return bytes of a value, from `start` to `end`, which counts, too."""
        return Command([b"GETRANGE", self._name(name), _integer(start), _integer(end)], bytes)

    @method
    def setrange(self, name: Name, offset: int, data: bytes) -> Command[int]:
        """Write bytes into a value; return how long it is then."""
        return Command([b"SETRANGE", self._name(name), _integer(offset), data], int)

    @method
    def getbit(self, name: Name, offset: int) -> Command[int]:
        """Return a bit of a value."""
        return Command([b"GETBIT", self._name(name), _integer(offset)], int)

    @method
    def setbit(self, name: Name, offset: int, bit: int) -> Command[int]:
        """Set a bit of a value; return what it was."""
        return Command([b"SETBIT", self._name(name), _integer(offset), _integer(bit)], int, False)

    @method
    def bitcount(self, name: Name, start: int = 0, end: int = -1) -> Command[int]:
        """Return how many bits are set in these bytes of a value."""
        return Command([b"BITCOUNT", self._name(name), _integer(start), _integer(end)], int)

    @method
    def bitop(
        self, operation: Literal["AND", "OR", "XOR", "NOT"], to: Name, *names: Name
    ) -> Command[int]:
        """Combine values bit by bit into the key `to`; return how long the result is."""
        request = [b"BITOP", operation.encode(), self._name(to), *map(self._name, names)]
        return Command(request, int, False)

    # --- keys --------------------------------------------------------------------------------

    @method
    def delete(self, *names: Name) -> Command[int]:
        """Delete keys; return how many there were."""
        # Sent twice it leaves the same store, though the second time it counts nothing.
        return Command([b"DEL", *map(self._name, names)], int) if names else _known(0)

    @method
    def exists(self, name: Name) -> Command[bool]:
        """Tell whether a key exists."""
        return Command([b"EXISTS", self._name(name)], bool)

    @method
    def expire(self, name: Name, ttl: Expiry) -> Command[bool]:
        """Have a key expire after a time, or at a moment; tell whether it exists."""
        return Command(expire_request(self._name(name), ttl), bool)

    @method
    def persist(self, name: Name) -> Command[bool]:
        """Have a key never expire; tell whether it had a deadline."""
        return Command([b"PERSIST", self._name(name)], bool)

    @method
    def ttl(self, name: Name) -> Command[float | None]:
        """Return the seconds a key has to live; None if it never expires or does not exist."""
        return Command([b"PTTL", self._name(name)], _seconds_left)

    @method
    def touch(self, *names: Name) -> Command[int]:
        """Count as a use of these keys; return how many there are."""
        return Command([b"TOUCH", *map(self._name, names)], int) if names else _known(0)

    @method
    def rename(self, name: Name, to: Name, *, if_absent: bool = False) -> Command[bool]:
        """Give a key another name; `if_absent`: only if that is free. Tell whether it was done.

        Raises ServerError if there is no such key.
        """
        word = b"RENAMENX" if if_absent else b"RENAME"
        return Command([word, self._name(name), self._name(to)], lambda reply: reply != 0, False)

    @method
    def copy(self, name: Name, to: Name, *, replace: bool = False) -> Command[bool]:
        """Copy a key; `replace`: even if there is something. Tell whether it was done."""
        words = [b"REPLACE"] if replace else []
        return Command([b"COPY", self._name(name), self._name(to), *words], bool)

    @method
    def dump(self, name: Name) -> Command[bytes | None]:
        """Return a value in Redis's own form, for restore() here or elsewhere."""
        return Command([b"DUMP", self._name(name)], _same)

    @method
    def restore(
        self, name: Name, data: bytes, *, ttl: Duration | None = None, replace: bool = False
    ) -> Command[None]:
        """Put back what dump() has returned. Raises ServerError if the key is there already."""
        words = [b"0" if ttl is None else milliseconds(ttl), data]
        words += [b"REPLACE"] if replace else []
        return Command([b"RESTORE", self._name(name), *words], _nothing, replace)

    @method
    def size(self) -> Command[int]:
        """Return how many keys the database has, whatever they begin with."""
        return Command([b"DBSIZE"], int)

    @method
    def clear(self) -> Command[None]:
        """Delete all keys of the database. Raises ValueError for a namespace, which is a part of it."""
        if self._prefix:
            raise ValueError("clear() is for a whole database: here it is delete_matching('*')")
        return Command([b"FLUSHDB"], _nothing)

    # --- everything else ---------------------------------------------------------------------

    @method
    def ping(self) -> Command[bool]:
        """Return True: the server answers."""
        return Command([b"PING"], lambda reply: reply == b"PONG")

    @method
    def publish(self, channel: Name, message: Any) -> Command[int]:
        """Send a value to all that listen to a channel; return how many these are."""
        data = self._serializer.encode(message)
        return Command([b"PUBLISH", self._name(channel), data], int, False)

    @method
    def eval(
        self, script: str | bytes, names: Sequence[Name] = (), arguments: Sequence[Word] = ()
    ) -> Command[Any]:
        """Carry out a script in Lua as one step; return its reply as it is."""
        keys = [self._name(name) for name in names]
        words = [encode_word(script), b"%d" % len(keys), *keys, *map(encode_word, arguments)]
        return Command([b"EVAL", *words], _same, False)

    @method
    def command(self, *words: Word) -> Command[Any]:
        """Carry out any command, by its words; return its reply as it is: bytes, int, list ...

        The keys in it are taken as they are, in a namespace, too.
        """
        return Command([encode_word(word) for word in words], _same, False)
