"""Which commands go together with scripts: the lists of Redis 7."""

from __future__ import annotations

from typing import Final

RUN_SCRIPTS: Final = frozenset(("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"))

ALLOWED_WHILE_BUSY: Final = frozenset((
    "AUTH", "DISCARD", "FUNCTION KILL", "HELLO", "MULTI", "QUIT", "REPLCONF", "RESET",
    "SCRIPT KILL", "SHUTDOWN", "UNWATCH", "WATCH",
))  # fmt: skip
"""What may be done while a script that takes too long has all others refused (allow_busy)."""

_FORBIDDEN: Final = frozenset(
    """
    AUTH BGSAVE DEBUG DISCARD EVAL EVALSHA EVALSHA_RO EVAL_RO EXEC FAILOVER FCALL FCALL_RO HELLO
    MONITOR MULTI PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT REPLCONF REPLICAOF RESET ROLE SAVE SHUTDOWN
    SLAVEOF SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC UNSUBSCRIBE UNWATCH WAIT WAITAOF WATCH
    """.split()  # noqa: SIM905 (a name per line would take thirty)
)

_CONTAINERS: Final = frozenset(
    ("ACL", "CLIENT", "CONFIG", "FUNCTION", "LATENCY", "MODULE", "SCRIPT")
)
"""All of their subcommands are forbidden, but for HELP."""


def forbidden_in_scripts(name: str) -> bool:
    """Tell whether a script may not call the command with this name (noscript)."""
    container, _, subcommand = name.partition(" ")
    return name in _FORBIDDEN or (container in _CONTAINERS and subcommand not in ("", "HELP"))
