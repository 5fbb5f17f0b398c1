"""What the server was told at its start, and what CONFIG SET may change while it runs."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

MB = 1024 * 1024


class Fsync(enum.Enum):
    """When a write to the journal is on disk, under Redis's names for it."""

    ALWAYS = "always"  # before it is answered
    EVERYSEC = "everysec"  # a second later at most
    NEVER = "never"  # when the operating system likes


@dataclass
class Config:
    """One field per flag of the command line. Fields are replaced whole, never mutated."""

    data: Path | None = Path("kvdb.json")  # None: in memory only
    host: str = "127.0.0.1"
    port: int = 4242
    memcached_port: int | None = None  # None: closed
    haus_port: int | None = None
    http_port: int | None = None
    max_bytes: int = 64 * MB  # 0: no limit
    fsync: str = "everysec"  # of the journal: always, everysec or never
    http_hosts: tuple[str, ...] = ()  # names, beside localhost, that a Host header may give
    snapshot_interval: float = 60.0  # seconds; 0: only on SAVE and at the end
    max_clients: int = 10_000
    max_value_bytes: int = 16 * MB
    idle_timeout: float = 0.0  # seconds; 0: never
    password: str | None = None
    protected: bool = True
    log_level: str = "info"

    @property
    def max_request_bytes(self) -> int:
        """What one request, or one transaction, may take altogether: four of the longest values."""
        return max(MB, 4 * self.max_value_bytes)
