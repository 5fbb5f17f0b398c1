"""What helps a person after an error: the usage of a command, or the name that was probably meant."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from kvdb.commands.table import TABLE, Command
from kvdb.errors import CommandError

_ABSENT: Final = {
    "lists": "LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LRANGE LLEN LINDEX LINSERT LREM LSET LTRIM LPOS LMOVE "
    "LMPOP BLPOP BRPOP BLMOVE BLMPOP BRPOPLPUSH RPOPLPUSH",
    "hashes": "HSET HGET HDEL HEXISTS HGETALL HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HSETNX HVALS "
    "HSCAN HSTRLEN HRANDFIELD HEXPIRE HPEXPIRE HTTL HPTTL HPERSIST",
    "sets": "SADD SREM SMEMBERS SISMEMBER SMISMEMBER SCARD SPOP SRANDMEMBER SMOVE SUNION SINTER SDIFF "
    "SUNIONSTORE SINTERSTORE SDIFFSTORE SINTERCARD SSCAN",
    "sorted sets": "ZADD ZREM ZRANGE ZRANGEBYSCORE ZRANGEBYLEX ZRANGESTORE ZREVRANGE ZREVRANGEBYSCORE "
    "ZSCORE ZMSCORE ZRANK ZREVRANK ZCARD ZCOUNT ZLEXCOUNT ZINCRBY ZPOPMIN ZPOPMAX BZPOPMIN BZPOPMAX "
    "ZMPOP BZMPOP ZUNION ZINTER ZDIFF ZUNIONSTORE ZINTERSTORE ZDIFFSTORE ZSCAN ZRANDMEMBER "
    "ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREMRANGEBYLEX",
    "streams": "XADD XLEN XRANGE XREVRANGE XREAD XREADGROUP XACK XDEL XTRIM XGROUP XINFO XPENDING XCLAIM "
    "XAUTOCLAIM XSETID",
    "places on a map": "GEOADD GEOPOS GEODIST GEOHASH GEOSEARCH GEOSEARCHSTORE GEORADIUS",
    "HyperLogLogs": "PFADD PFCOUNT PFMERGE",
    "commands for sorting": "SORT SORT_RO",
}
"""Redis's commands for what kvdb does not have."""

_SYNONYMS: Final = dict.fromkeys(("EXIT", "BYE", "LOGOUT"), "QUIT")

_NOT_TO_BE_PROPOSED: Final = frozenset(("SHUTDOWN", "FLUSHALL", "FLUSHDB", "SWAPDB"))
"""What nobody should try because it was proposed."""

_FAMILY_OF: Final = {name: family for family, names in _ABSENT.items() for name in names.split()}


def find_command(words: Sequence[bytes]) -> Command | None:
    """Return the command, or the subcommand, that a request begins with."""
    row = TABLE.get(words[0].upper()) if words else None
    if row is not None and row.subcommands and len(words) > 1:
        return row.subcommands.get(words[1].upper(), row)
    return row


def usage(row: Command) -> str:
    """Return the line that shows how a command is written."""
    return f"{row.name} {row.usage}".rstrip()


def hint(words: Sequence[bytes], refusal: str) -> str | None:
    """Return what may help whoever got this refusal, or None."""
    name = words[0].upper().decode("utf-8", "replace")
    container = TABLE.get(words[0].upper())
    if container is None:
        if not refusal.startswith("ERR unknown command"):
            return None
        if name in _FAMILY_OF and _FAMILY_OF[name] not in _families_here():
            return f"kvdb has no {_FAMILY_OF[name]}."
        return _meant(name, [known.decode() for known in TABLE])
    row = find_command(words)
    if row is container and row.subcommands and len(words) > 1:
        subcommand = words[1].upper().decode("utf-8", "replace")
        found = _close(subcommand, [known.decode() for known in row.subcommands], 1)
        return f"Did you mean {row.name} {found[0]}?" if found else None
    return f"Usage: {usage(row)}" if row is not None and refusal.startswith("ERR ") else None


def with_hint(words: Sequence[bytes], refusal: CommandError) -> CommandError:
    """Return the refusal with what may help whoever has typed these words; the text begins as ever."""
    text, name = refusal.text, words[0].decode("ascii", "replace").upper()
    if text.startswith(("ERR unknown command", "ERR unknown subcommand")):
        help = hint(words, text) or "HELP lists the commands"
        help = help[0].lower() + help[1:].rstrip(".") if help[0] == "D" else help.rstrip(".")
    elif text.startswith("ERR wrong number of arguments") and words[0].upper() in TABLE:
        help = f"HELP {name} tells how it is written"
    else:
        return refusal
    return CommandError(f"{text.rstrip()} ({help})")


def _families_here() -> set[str]:
    """Return the families of which the table has a command, in case it has grown."""
    return {_FAMILY_OF[name.decode()] for name in TABLE if name.decode() in _FAMILY_OF}


def _meant(name: str, known: list[str]) -> str | None:
    close = [_SYNONYMS[name]] if name in _SYNONYMS else _close(name, known, 3)
    close = [each for each in close if each not in _NOT_TO_BE_PROPOSED]
    return f"Did you mean {' or '.join(close)}?" if close else None


def _close(name: str, known: list[str], most: int) -> list[str]:
    """Return which of the known names look like this one."""
    from difflib import get_close_matches  # only who mistypes needs it

    close = get_close_matches(name, known, 2 * most, cutoff=0.65)
    close.sort(
        key=lambda each: sorted(each) != sorted(name)
    )  # two letters that changed places first
    return close[:most]


def explanation(words: Sequence[bytes]) -> str:
    """Return what HELP says of a command, for a server that has no HELP; of all, if there is none."""
    if not words:
        return textwrap.fill(" ".join(sorted(name.decode() for name in TABLE)), width=76)
    row = find_command(words)
    if row is None:
        return hint(words, "ERR unknown command") or "There is no such command."
    rows = [row, *row.subcommands.values()]
    return "\n".join(f"{usage(each)}\n  {each.summary}" for each in rows)
