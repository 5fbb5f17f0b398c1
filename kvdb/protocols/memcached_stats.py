"""memcached's `stats`: of its fields those that mean something here, and count what they say.

Commands (`cmd_*`, `*_hits`, `*_misses`, `cas_badval`, `store_*`, `auth_*`) are those of this
port, `curr_items` and `items:1:number` are of its database; memory, `total_items`, evictions and
expiries are of the whole store, connections of all ports. get_flushed is left out: after a
flush_all nothing is left that a get could find. Neither are there slabs, LRU classes, a crawler
that is told what to do, or buffers that are counted apart.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import kvdb
from kvdb.commands.session import Session
from kvdb.protocols.memcached_listing import cachedump
from kvdb.protocols.memcached_values import BAD_FORMAT, ERROR, parse_unsigned
from kvdb.store.budget import EvictionPolicy

VERSION: Final = f"1.6.18-kvdb-{kvdb.__version__}"
"""The memcached whose answers ours follow, for clients that decide by it what they may send."""

_OUTCOMES: Final = (
    "delete_misses", "delete_hits", "incr_misses", "incr_hits", "decr_misses", "decr_hits",
    "cas_misses", "cas_hits", "cas_badval", "touch_hits", "touch_misses", "store_too_large",
    "store_no_memory", "auth_cmds", "auth_errors",
)  # fmt: skip
_OUTCOMES_OF_SLABS: Final = (
    "get_hits", "cmd_set", "delete_hits", "incr_hits", "decr_hits", "cas_hits", "cas_badval",
    "touch_hits",
)  # fmt: skip


class Statistics:
    """What one session is told of the server."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._instance, self._store = session.instance, session.store

    def answer(self, words: list[bytes]) -> bytes:
        """Return the reply to `stats` with what follows it."""
        match words[1:]:
            case []:
                return _listed(self._general())
            case [b"settings"]:
                return _listed(self._settings())
            case [b"reset"]:
                self._instance.reset_statistics()
                return b"RESET\r\n"
            case [b"items"]:
                return _listed(self._items())
            case [b"slabs"]:
                return _listed(self._slabs())
            case [b"sizes"]:  # memcached, too, has to be started with a flag for these
                return _listed({"sizes_status": "disabled"})
            case [b"conns"]:
                return _listed(self._connections())
            case [b"cachedump", _, limit] if parse_unsigned(limit, 32) is not None:
                return cachedump(self._store, self._session.db, int(limit))
            case [b"cachedump", *_]:
                return BAD_FORMAT
            case [b"detail", *rest]:
                return self._detail(rest)
            case _:
                return ERROR

    def _detail(self, words: list[bytes]) -> bytes:
        prefixes = self._instance.prefixes
        match words:
            case [b"on" | b"off" as switch]:
                prefixes.enabled = switch == b"on"
                return b"OK\r\n"
            case [b"dump"]:
                return prefixes.dump()
            case _:
                return b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"

    def _general(self) -> dict[str, object]:
        instance, store = self._instance, self._store
        counts, times = instance.counts(), os.times()
        connections = len(instance.sessions())
        return {
            "pid": os.getpid(),
            "uptime": int(instance.monotonic() - instance.started_at),
            "time": int(store.now()),
            "version": VERSION,
            "pointer_size": sys.maxsize.bit_length() + 1,
            "rusage_user": f"{times.user:.6f}",
            "rusage_system": f"{times.system:.6f}",
            "max_connections": instance.config.max_clients,
            "curr_connections": connections,
            "total_connections": instance.connections_received,
            "rejected_connections": instance.connections_rejected,
            "connection_structures": connections,  # none outlives its connection
            "cmd_get": counts["get_hits"] + counts["get_misses"],
            "cmd_set": counts["cmd_set"],
            "cmd_flush": counts["cmd_flush"],
            "cmd_touch": counts["touch_hits"] + counts["touch_misses"],
            "cmd_meta": counts["cmd_meta"],
            "get_hits": counts["get_hits"],
            "get_misses": counts["get_misses"],
            "get_expired": counts["get_expired"],
            **{name: counts[name] for name in _OUTCOMES},
            "bytes_read": counts["received"],
            "bytes_written": counts["sent"],
            "limit_maxbytes": store.max_bytes,
            "accepting_conns": 1,  # too many are accepted, too, to be refused
            "listen_disabled_num": 0,
            "threads": instance.threads,
            "bytes": store.used_bytes,
            "curr_items": self._keys(),
            "total_items": store.stored_entries,
            "evictions": store.evicted_keys,
            "reclaimed": store.reclaimed_keys,
            "crawler_reclaimed": self._reaped(),
        }

    def _keys(self) -> int:
        return self._store.size(self._session.db)

    def _reaped(self) -> int:
        """How many keys have gone when their time had come, though nobody wanted anything."""
        store = self._store
        return max(0, store.expired_keys - store.found_expired - store.reclaimed_keys)

    def _settings(self) -> dict[str, object]:
        config = self._instance.config
        port = self._session.local_address.rpartition(":")[2]
        never_evicts = self._store.policy is EvictionPolicy.NOEVICTION
        return {
            "maxbytes": self._store.max_bytes,
            "maxconns": config.max_clients,
            "tcpport": port or config.memcached_port,  # what was asked for may be 0: any
            "udpport": 0,
            "inter": config.host,
            "verbosity": 0,
            "evictions": "off" if never_evicts else "on",
            "domain_socket": "NULL",
            "shutdown_command": "no",
            "stat_key_prefix": ":",
            "detail_enabled": "yes" if self._instance.prefixes.enabled else "no",
            "cas_enabled": "yes",
            "binding_protocol": "ascii",
            "auth_enabled_sasl": "no",
            "auth_enabled_ascii": "no" if self._instance.users.default.rules.is_open else "yes",
            "item_size_max": config.max_value_bytes,
            "maxconns_fast": "yes",
            "flush_enabled": "yes",
            "dump_enabled": "yes",
            "idle_timeout": f"{config.idle_timeout:g}",
            "track_sizes": "no",
            "ssl_enabled": "no",
        }

    def _items(self) -> dict[str, object]:
        """One class holds everything; an empty one is not listed, as in memcached."""
        if not (keys := self._keys()):
            return {}
        return {
            "items:1:number": keys,
            "items:1:mem_requested": self._store.used_bytes,
            "items:1:evicted": self._store.evicted_keys,
            "items:1:outofmemory": self._instance.counts()["store_no_memory"],
            "items:1:reclaimed": self._store.reclaimed_keys,
            "items:1:crawler_reclaimed": self._reaped(),
        }

    def _slabs(self) -> dict[str, object]:
        whole = {"total_malloced": self._store.used_bytes}
        if not (keys := self._keys()):
            return {"active_slabs": 0, **whole}
        counts = self._instance.counts()
        return {
            "1:used_chunks": keys,
            **{f"1:{name}": counts[name] for name in _OUTCOMES_OF_SLABS},
            "active_slabs": 1,
            **whole,
        }

    def _connections(self) -> dict[str, object]:
        now = self._instance.monotonic()
        figures: dict[str, object] = {}
        for session in self._instance.sessions():
            figures[f"{session.id}:addr"] = f"tcp:{session.address}"
            figures[f"{session.id}:listen_addr"] = f"tcp:{session.local_address}"
            figures[f"{session.id}:secs_since_last_cmd"] = int(now - session.last_active)
        return figures


def _listed(figures: dict[str, object]) -> bytes:
    lines = [f"STAT {name} {value}\r\n" for name, value in figures.items()]
    return "".join([*lines, "END\r\n"]).encode()
