"""What the server was told at its start, and what CONFIG SET may change while it runs."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from kvdb.output_limits import REDIS_LIMITS, OutputLimits

MB = 1024 * 1024

SQLITE_MAGIC = b"SQLite format 3\0"
"""What an SQLite database begins with."""


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
    memcached_db: int = 0  # the database that memcached clients see
    haus_db: int = 0
    max_bytes: int = 64 * MB  # 0: no limit
    fsync: str = "everysec"  # of the journal: always, everysec or never
    http_hosts: tuple[str, ...] = ()  # names, beside localhost, that a Host header may give
    http_writable: bool = False  # the page may change keys
    snapshot_interval: float = 60.0  # seconds; 0: only on SAVE and at the end
    max_clients: int = 10_000
    max_value_bytes: int = 16 * MB
    max_client_bytes: int = (
        64 * MB
    )  # what clients' buffers and queues may take together; 0: no limit
    idle_timeout: float = 0.0  # seconds; 0: never
    password: str | None = None  # of the default user, at the start
    acl_file: Path | None = None  # the users; None: those that ACL SETUSER makes
    acl_log_max_len: int = 128  # entries of ACL LOG
    protected: bool = True
    import_file: Path | None = None  # a dump.rdb, for an empty store
    replica_of: tuple[str, int] | None = None  # the primary, at the start
    primary_user: str | None = None  # whom we are there
    primary_password: str | None = None
    primary_tls_ca: Path | None = None  # TLS is spoken with it, and these authorities are trusted
    log_level: str = "info"
    log_format: str = "text"  # or json
    config_file: Path | None = None  # which has said some of this
    slow_log_threshold: int = 10_000  # microseconds; -1: no slow log
    slow_log_length: int = 128
    latency_threshold: int = 0  # milliseconds; 0: no latency monitor
    latency_tracking: bool = False  # times of each command
    script_time_limit: int = 5_000  # milliseconds until others get BUSY; 0: never
    enable_debug_command: str = "no"  # or yes or local
    notify_keyspace_events: str = ""  # letters, as Redis has them; see Notifications
    output_limits: OutputLimits = REDIS_LIMITS
    tls_cert: Path | None = None  # with it, every port speaks TLS and nothing else
    tls_key: Path | None = None  # None: it is in the certificate's file
    tls_client_ca: Path | None = None  # clients need a certificate that it has signed

    @property
    def is_journal(self) -> bool:
        """Whether the data file is a journal: what is in it decides, else how it is called."""
        if self.data is None:
            return False
        try:
            with open(self.data, "rb") as file:
                begin = file.read(len(SQLITE_MAGIC))
        except OSError:
            begin = b""
        if begin == SQLITE_MAGIC or begin.startswith(b"{"):
            return begin == SQLITE_MAGIC
        return self.data.suffix.lower() in (".sqlite", ".sqlite3", ".db")

    @property
    def max_request_bytes(self) -> int:
        """What one request, or one transaction, may take altogether: four of the longest values."""
        return max(MB, 4 * self.max_value_bytes)
