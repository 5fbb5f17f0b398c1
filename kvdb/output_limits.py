"""How much may wait for a client that does not read (Redis's client-output-buffer-limit)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_UNITS: Final = {
    "": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3,
}  # fmt: skip


def parse_bytes(text: str) -> int:
    """Parse a number of bytes as redis.conf has it: 100mb, 1gb, 5000. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,15})([a-z]*)", text.lower(), re.ASCII)
    if not match or match[2] not in _UNITS:
        raise ValueError("argument must be a memory value")
    return int(match[1]) * _UNITS[match[2]]


class Limit(NamedTuple):
    """Bytes that may wait for one client; beyond, it is ended. 0: no limit."""

    hard: int
    """Never more than this."""
    soft: int
    """Not more than this for longer than `seconds`."""
    seconds: int

    def __str__(self) -> str:
        return f"{self.hard} {self.soft} {self.seconds}"


class OutputLimits(NamedTuple):
    """The limits of Redis's three classes of clients, with its defaults."""

    normal: Limit = Limit(0, 0, 0)
    """Whoever is not subscribed to anything. Nothing is read of it while replies wait for it."""
    replica: Limit = Limit(268435456, 67108864, 60)
    pubsub: Limit = Limit(33554432, 8388608, 60)
    """Whoever is subscribed. Counted is what was pushed: a large reply that is being read is
    no reason to end a client because one message has come meanwhile."""

    def __str__(self) -> str:
        return f"normal {self.normal} slave {self.replica} pubsub {self.pubsub}"

    def changed(self, text: str) -> OutputLimits:
        """Return them with these (`pubsub 32mb 8mb 60 normal ...`) in place of the same classes'.

        Raises ValueError in Redis's words.
        """
        words = text.split(" ") if text else []
        if len(words) % 4:
            raise ValueError("Wrong number of arguments in buffer limit configuration.")
        limits = self
        for name, *numbers in zip(*[iter(words)] * 4, strict=True):
            field = _CLASSES.get(name.lower())
            if field is None:
                raise ValueError("Invalid client class specified in buffer limit configuration.")
            try:
                if not re.fullmatch(r"[0-9]{1,9}", numbers[2]):
                    raise ValueError
                limit = Limit(parse_bytes(numbers[0]), parse_bytes(numbers[1]), int(numbers[2]))
            except ValueError:
                raise ValueError(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration."
                ) from None
            limits = limits._replace(**{field: limit})
        return limits


_CLASSES: Final = {
    "normal": "normal", "slave": "replica", "replica": "replica", "pubsub": "pubsub",
}  # fmt: skip

REDIS_LIMITS: Final = OutputLimits()
"""What Redis has, unless it is told otherwise."""
