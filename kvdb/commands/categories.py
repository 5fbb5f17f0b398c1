"""Redis's categories of commands, which rules for users name: @read, @dangerous.

Most follow from what a command's row says; what does not is here, taken from Redis 7 and 8 and
from Valkey, which agree. Commands that are not Redis's get what their row says.
"""

from __future__ import annotations

from typing import Final

FAST: Final = frozenset(
    """
    APPEND ASKING AUTH BITFIELD_RO DBSIZE DECR DECRBY DELEX DELIFEQ DISCARD ECHO EXISTS
    EXPIRE EXPIREAT EXPIRETIME GET GETBIT GETDEL GETEX GETSET HELLO INCR INCRBY INCRBYFLOAT
    INCREX LASTSAVE LOLWUT MGET MOVE MULTI PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PING PTTL PUBLISH
    QUIT READONLY READWRITE RENAMENX RESET ROLE SELECT SETNX SPUBLISH STRLEN SWAPDB TIME
    TOUCH TTL TYPE UNLINK UNWATCH WATCH
    """.split()  # noqa: SIM905 (a name per line would take sixty)
)
"""The commands that Redis calls fast. Others are slow, however quickly they are done."""

_OF_GROUPS: Final = {
    "generic": "keyspace",
    "string": "string",
    "bitmap": "bitmap",
    "pubsub": "pubsub",
    "scripting": "scripting",
    "transactions": "transaction",
    "connection": "connection",
}

_MORE: Final = {
    "ASKING": ("connection",),
    "COMMAND": ("connection",),
    "DBSIZE": ("keyspace",),
    "FLUSHALL": ("keyspace", "dangerous"),
    "FLUSHDB": ("keyspace", "dangerous"),
    "INFO": ("dangerous",),
    "KEYS": ("dangerous",),
    "LASTSAVE": ("admin", "dangerous"),
    "MIGRATE": ("dangerous",),
    "READONLY": ("connection",),
    "READWRITE": ("connection",),
    "RESTORE": ("dangerous",),
    "ROLE": ("admin", "dangerous"),
    "SWAPDB": ("keyspace", "dangerous"),
}
"""Of a container's row, for its subcommands, too."""

_ONLY: Final = {
    **dict.fromkeys(("BITCOUNT", "BITFIELD_RO", "BITPOS", "GETBIT"), ("bitmap", "read")),
    **dict.fromkeys(("BITFIELD", "BITOP", "SETBIT"), ("bitmap", "write")),
    **dict.fromkeys(("FUNCTION DELETE", "FUNCTION FLUSH"), ("scripting", "write")),
    **dict.fromkeys(("FUNCTION LOAD", "FUNCTION RESTORE"), ("scripting", "write")),
    **dict.fromkeys(("WAIT", "WAITAOF"), ("connection", "blocking")),
    "LOLWUT": ("read",),
    "PUBSUB HELP": (),
}
"""Of commands whose row says something else, beside fast or slow."""


def categories_of(
    name: str, group: str, is_container: bool, reads: bool, writes: bool, admin: bool
) -> frozenset[str]:
    """Return the categories of a command, without their `@`."""
    speed = "fast" if name in FAST else "slow"
    if is_container and name not in _MORE:
        return frozenset((speed,))
    if name in _ONLY:
        return frozenset((speed, *_ONLY[name]))
    found = {speed, *_MORE.get(name.partition(" ")[0], ())}
    if group in _OF_GROUPS:
        found.add(_OF_GROUPS[group])
    if group != "scripting":  # a script may do either
        found |= {"read"} if reads else set()
        found |= {"write"} if writes else set()
    if admin:
        found |= {"admin", "dangerous"}
    return frozenset(found)
