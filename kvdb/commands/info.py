"""INFO: what the server is doing, under Redis's section and field names."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from collections.abc import Callable
from typing import Final

import kvdb
from kvdb.acl import Reason
from kvdb.commands.instance import Instance
from kvdb.commands.session import ERROR_COUNT, Session
from kvdb.commands.table import NONE, REDIS_VERSION, command
from kvdb.config import MB
from kvdb.memory import resident_bytes
from kvdb.persistence.snapshot import Snapshots
from kvdb.pubsub import Kind
from kvdb.replication.primary import BACKLOG_BYTES
from kvdb.replication.standby import Standby
from kvdb.replies import Reply, Verbatim
from kvdb.store.entry import TABLE_SHARE, entry_cost

Fields = dict[str, object]

_DENIED: Final = {
    "auth": Reason.AUTH, "cmd": Reason.COMMAND, "key": Reason.KEY, "channel": Reason.CHANNEL,
}  # fmt: skip


def human(number: int) -> str:
    """Return a number of bytes as Redis's *_human fields have it: 1.50M."""
    if number < 1024:
        return f"{number}B"
    size = float(number)
    for unit in "KMGT":
        size /= 1024
        if size < 1024 or unit == "T":
            return f"{size:.2f}{unit}"
    raise AssertionError("unreachable")


def _server(instance: Instance) -> Fields:
    uptime = int(instance.monotonic() - instance.started_at)
    return {
        "redis_version": REDIS_VERSION,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": "0000000000000000",
        "redis_mode": "standalone",
        "kvdb_version": kvdb.__version__,
        "python_version": platform.python_version(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64 if sys.maxsize > 2**32 else 32,
        "process_id": os.getpid(),
        "run_id": instance.run_id,
        "tcp_port": instance.config.port,
        "server_time_usec": int(instance.store.clock() * 1_000_000),
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime // 86400,
        "executable": sys.executable,
        "config_file": str(instance.config.config_file or ""),
    }


def _clients(instance: Instance) -> Fields:
    sessions = instance.sessions()
    return {
        "connected_clients": len(sessions),
        "maxclients": instance.config.max_clients,
        "blocked_clients": sum(session.waiting is not None for session in sessions),
        "tracking_clients": instance.tracking.figures()["tracking_clients"],
        "pubsub_clients": instance.hub.clients,
        "watching_clients": sum(bool(session.watched) for session in sessions),
        "total_watched_keys": len({key for session in sessions for key in list(session.watched)}),
    }


def _memory(instance: Instance) -> Fields:
    store, governor = instance.store, instance.governor
    used = store.used_bytes
    overhead = TABLE_SHARE * store.total_keys  # with what is due: it is in use, too
    fields: Fields = {
        "used_memory": used,
        "used_memory_human": human(used),
        "used_memory_peak": (peak := instance.note_peak()),
        "used_memory_peak_human": human(peak),
        "used_memory_peak_perc": f"{100 * used / peak if peak else 100:.2f}%",
        "used_memory_overhead": overhead,
        "used_memory_dataset": used - overhead,
        "used_memory_overhead_per_key": entry_cost(b"", b""),
        "maxmemory": store.max_bytes,
        "maxmemory_human": human(store.max_bytes),
        "maxmemory_policy": store.policy.value,
    }
    if governor:
        fields["maxmemory_allowed_now"] = min(governor.allowance, store.max_bytes)
        fields["mem_fragmentation_bytes"] = governor.holes
    saving = instance.persistence.held_bytes if instance.persistence else 0
    fields |= {
        "maxmemory_clients": instance.config.max_client_bytes,
        "mem_clients_normal": instance.accounts.held,
        "mem_scan_indexes": store.index_bytes,
        "mem_waiting_for_disk": saving,
        "used_memory_lua": instance.scripts.held_bytes,
        "used_memory_scripts": instance.scripts.held_bytes,
        "number_of_cached_scripts": instance.scripts.count,
        "mem_not_counted_for_evict": instance.not_entries_bytes(),
    }
    empty = governor.empty if governor else None
    if empty is not None:
        fields["used_memory_startup"] = empty
    resident = resident_bytes()
    if resident is not None:
        fields["used_memory_rss"] = resident
        fields["used_memory_rss_human"] = human(resident)
        if used >= MB:  # below, what clients and threads take is more than what entries do
            ratio = (resident - (empty or 0)) / used  # used_memory leaves the empty server out
            fields["mem_fragmentation_ratio"] = f"{ratio:.2f}"
    return fields


def keeps_journal(instance: Instance) -> bool:
    """Tell whether changes go into a journal."""
    # Asked so that SQLite need not be imported.
    return instance.persistence is not None and not isinstance(instance.persistence, Snapshots)


def error_counts(counts: Counter[str]) -> dict[str, int]:
    """Return how many errors there were by code word; those that were reset are left out."""
    return {
        name.removeprefix(ERROR_COUNT): count
        for name, count in sorted(counts.items())
        if name.startswith(ERROR_COUNT) and count
    }


def _persistence(instance: Instance) -> Fields:
    persistence = instance.persistence
    fields: Fields = {"loading": int(instance.loading), "async_loading": 0}
    if persistence is None:
        last_save = int(instance.started_time)
        changes, saving, error, duration, saves = 0, False, None, None, 0
        age, congested = 0.0, False
    else:
        changes, saving = persistence.changes_since_save, persistence.in_progress
        last_save, error = int(persistence.last_save), persistence.last_error
        duration, saves = persistence.last_duration, persistence.saves
        age, congested = persistence.age, persistence.congested
    fields |= {
        "rdb_changes_since_last_save": changes,
        "rdb_bgsave_in_progress": int(saving),
        "rdb_last_save_time": last_save,
        "rdb_last_bgsave_status": "err" if error else "ok",
        "rdb_last_bgsave_time_sec": -1 if duration is None else round(duration),
        "rdb_saves": saves,
        "aof_enabled": int(keeps_journal(instance)),
        "aof_rewrite_in_progress": 0,
        "unsaved_age_seconds": f"{age:.3f}",
        "writers_wait_for_disk": int(congested),
        "aof_last_write_status": "err" if error else "ok",
    }
    if error:
        fields["persistence_last_error"] = error
    if dead := instance.dead_threads():
        fields["dead_threads"] = ",".join(dead)
    return fields


def _stats(instance: Instance) -> Fields:
    store, counts, replication = instance.store, instance.counts(), instance.replication
    return {
        "total_connections_received": instance.connections_received,
        "total_commands_processed": counts["commands"],
        "instantaneous_ops_per_sec": round(instance.operations_per_second),
        "total_net_input_bytes": counts["received"],
        "total_net_output_bytes": counts["sent"],
        "rejected_connections": instance.connections_rejected,
        "sync_full": replication.full_syncs,
        "sync_partial_ok": replication.partial_syncs,
        "sync_partial_err": replication.partial_refusals,
        "expired_keys": store.expired_keys,
        "evicted_keys": store.evicted_keys,
        "evicted_clients": instance.accounts.ended,
        "keyspace_hits": store.hits,
        "keyspace_misses": store.misses,
        "pubsub_channels": instance.hub.count(Kind.CHANNEL),
        "pubsub_patterns": instance.hub.count(Kind.PATTERN),
        "pubsubshard_channels": instance.hub.count(Kind.SHARD),
        "client_output_buffer_limit_disconnections": instance.ended_by_output_limit,
        **{
            name: number
            for name, number in instance.tracking.figures().items()
            if name.startswith("tracking_total")
        },
        **{
            f"acl_access_denied_{field}": instance.denials.count(reason)
            for field, reason in _DENIED.items()
        },
        "total_error_replies": sum(error_counts(counts).values()),
    }


def _following(standby: Standby, now: float) -> Fields:
    """What a replica tells of its primary."""
    heard, up = standby.heard_at, standby.state == "connected"
    fields: Fields = {
        "role": "slave",
        "master_host": standby.primary.host,
        "master_port": standby.primary.port,
        "master_link_status": "up" if up else "down",
        "master_last_io_seconds_ago": -1 if heard is None else int(now - heard),
        "master_sync_in_progress": int(standby.state == "sync"),
        "slave_read_repl_offset": standby.offset,
        "slave_repl_offset": standby.offset,
        "slave_priority": 100,
        "slave_read_only": 1,
        "replica_announced": 1,
        "replica_refused_commands": sum(standby.refused.values()),
    }
    if not up:
        fields["master_link_down_since_seconds"] = int(now - standby.down_since)
    return fields


def _replication(instance: Instance) -> Fields:
    replication = instance.replication
    lags, backlog = replication.lags(), replication.backlog
    fields: Fields = {"role": "master"}
    if instance.standby is not None:
        fields = _following(instance.standby, instance.monotonic())
    fields["connected_slaves"] = len(lags)
    for number, (replica, offset, seconds) in enumerate(lags):
        ip, port = replica.address
        fields[f"slave{number}"] = (
            f"ip={ip},port={port},state={replica.state},offset={offset},lag={int(seconds)}"
        )
    return fields | {
        "master_failover_state": "no-failover",
        "master_replid": replication.id,
        "master_replid2": "0" * 40,
        "master_repl_offset": replication.offset,
        "second_repl_offset": -1,
        "repl_backlog_active": int(backlog is not None),
        "repl_backlog_size": BACKLOG_BYTES,
        "repl_backlog_first_byte_offset": backlog[0] + 1 if backlog else 0,
        "repl_backlog_histlen": backlog[1] if backlog else 0,
    }


def _cpu(instance: Instance) -> Fields:
    times = os.times()
    fields: Fields = {
        "used_cpu_sys": f"{times.system:.6f}",
        "used_cpu_user": f"{times.user:.6f}",
        "used_cpu_sys_children": f"{times.children_system:.6f}",
        "used_cpu_user_children": f"{times.children_user:.6f}",
    }
    return fields


def _modules(instance: Instance) -> Fields:
    return {}


def _commandstats(instance: Instance) -> Fields:
    return {
        f"cmdstat_{name}": f"calls={times.calls},usec={times.nanoseconds // 1000},usec_per_call="
        f"{times.nanoseconds / 1000 / max(times.calls, 1):.2f},rejected_calls={times.rejected},"
        f"failed_calls={times.failed}"
        for name, times in instance.overseer.command_times().items()
    }


def _latencystats(instance: Instance) -> Fields:
    return {
        f"latency_percentiles_usec_{name}": ",".join(
            f"p{percent:g}={times.percentile(percent):.3f}" for percent in (50, 99, 99.9)
        )
        for name, times in instance.overseer.command_times().items()
        if times.calls
    }


def _errorstats(instance: Instance) -> Fields:
    return {
        f"errorstat_{code}": f"count={count}"
        for code, count in error_counts(instance.counts()).items()
    }


def _cluster(instance: Instance) -> Fields:
    return {"cluster_enabled": 0}


def _keyspace(instance: Instance) -> Fields:
    return {
        f"db{db}": f"keys={keys},expires={expiring},avg_ttl={round(mean * 1000)}"
        for db, (keys, expiring, mean) in instance.store.sizes().items()
    }


SECTIONS: Final[dict[str, Callable[[Instance], Fields]]] = {
    "Server": _server,
    "Clients": _clients,
    "Memory": _memory,
    "Persistence": _persistence,
    "Stats": _stats,
    "Replication": _replication,
    "CPU": _cpu,
    "Modules": _modules,
    "Commandstats": _commandstats,
    "Errorstats": _errorstats,
    "Latencystats": _latencystats,
    "Cluster": _cluster,
    "Keyspace": _keyspace,
}

_ONLY_WITH_ALL: Final = ("Commandstats", "Latencystats")
"""What Redis leaves out of INFO unless it is asked for by name, or for all."""


@command(
    "INFO",
    "[section ...]",
    NONE,
    "Describe the server: versions, memory, saving, counters.",
    group="server",
)
def info(session: Session, *sections: bytes) -> Reply:
    session.take_leisure()  # some keys of every database are looked at
    wanted = {section.decode("utf-8", "replace").lower() for section in sections}
    default = not wanted or "default" in wanted
    everything = wanted & {"all", "everything"}
    parts = []
    for name, fields in SECTIONS.items():
        chosen = everything or (default and name not in _ONLY_WITH_ALL)
        if chosen or name.lower() in wanted:
            lines = [f"# {name}"]
            lines += [f"{field}:{value}" for field, value in fields(session.instance).items()]
            parts.append("\r\n".join(lines) + "\r\n")
    return Verbatim("\r\n".join(parts))
