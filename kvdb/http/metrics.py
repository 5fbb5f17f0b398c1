"""/metrics: what INFO tells, in Prometheus's text format.

The names are those of the customary exporter for Redis, so that its dashboards work. CONFIG
RESETSTAT sets the counters back to 0, as there: Prometheus takes that for a restart.
See https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import kvdb
from kvdb.commands.info import error_counts
from kvdb.commands.instance import Instance
from kvdb.commands.standing import PROTOCOLS
from kvdb.latency import percentile
from kvdb.memory import resident_bytes

Samples = list[tuple[str, float]]


def render_metrics(instance: Instance) -> str:
    """Return the whole answer."""
    lines: list[str] = []

    def add(name: str, kind: str, text: str, samples: Samples | float | None) -> None:
        if samples is None:
            return
        lines.append(f"# HELP redis_{name} {text}")
        lines.append(f"# TYPE redis_{name} {kind}")
        for labels, value in samples if isinstance(samples, list) else [("", samples)]:
            lines.append(f"redis_{name}{labels} {value:.17g}")

    store, counts, persistence = instance.store, instance.counts(), instance.persistence
    sizes = store.sizes()
    versions = {"kvdb_version": kvdb.__version__, "python_version": platform.python_version()}
    labels = ",".join(f'{name}="{value}"' for name, value in versions.items())
    add("up", "gauge", "1: the server answers.", 1)
    add("instance_info", "gauge", "Versions.", [(f"{{{labels}}}", 1)])
    uptime = instance.monotonic() - instance.started_at
    add("uptime_in_seconds", "gauge", "Seconds since the start.", int(uptime))
    add("connected_clients", "gauge", "Open connections.", len(instance.sessions()))
    evicted = instance.accounts.ended
    add("evicted_clients_total", "counter", "Clients ended that held too much.", evicted)
    add("config_maxclients", "gauge", "Connections allowed.", instance.config.max_clients)
    received, rejected = instance.connections_received, instance.connections_rejected
    add("connections_received_total", "counter", "Connections accepted.", received)
    add("rejected_connections_total", "counter", "Connections refused.", rejected)
    add("commands_processed_total", "counter", "Commands of all dialects.", counts["commands"])
    by_protocol: Samples = [
        (f'{{protocol="{name}"}}', counts[f"commands {name}"]) for name in PROTOCOLS
    ]
    add("commands_by_protocol_total", "counter", "Commands by protocol.", by_protocol)
    _add_times(add, instance)
    text = "Bytes received; of HTTP, bodies only."
    add("net_input_bytes_total", "counter", text, counts["received"])
    text = "Bytes sent; of HTTP, bodies only."
    add("net_output_bytes_total", "counter", text, counts["sent"])
    errors: Samples = [(f'{{err="{code}"}}', n) for code, n in error_counts(counts).items()]
    add("errors_total", "counter", "Errors on the main port by code word.", errors)
    add("memory_used_bytes", "gauge", "Bytes of the budget in use.", store.used_bytes)
    add("memory_max_bytes", "gauge", "The byte budget; 0: none.", store.max_bytes)
    add("memory_used_rss_bytes", "gauge", "Physical memory of the process.", resident_bytes())
    others = instance.not_entries_bytes()
    add("mem_not_counted_for_eviction_bytes", "gauge", "Bytes beside entries.", others)
    add("mem_clients_normal", "gauge", "Bytes that clients hold.", instance.accounts.held)
    add("dead_threads", "gauge", "Background threads that died.", len(instance.dead_threads()))
    add("keyspace_hits_total", "counter", "Reads that found a value.", store.hits)
    add("keyspace_misses_total", "counter", "Reads that found none.", store.misses)
    add("expired_keys_total", "counter", "Keys whose time had come.", store.expired_keys)
    add("evicted_keys_total", "counter", "Keys that had to go for room.", store.evicted_keys)
    keys: Samples = [(f'{{db="db{db}"}}', size[0]) for db, size in sizes.items()]
    expiring: Samples = [(f'{{db="db{db}"}}', size[1]) for db, size in sizes.items()]
    add("db_keys", "gauge", "Keys by database.", keys)
    add("db_keys_expiring", "gauge", "Keys with a deadline by database.", expiring)
    to_live: Samples = [(f'{{db="db{db}"}}', size[2]) for db, size in sizes.items() if size[1]]
    add("db_avg_ttl_seconds", "gauge", "Mean seconds to live of a sample of these.", to_live)
    slow = len(instance.overseer.slow_log)
    add("slowlog_length", "gauge", "Requests in the slow log.", slow)
    if persistence:
        ok = persistence.last_error is None
        add("rdb_last_bgsave_status", "gauge", "1: the last save went well.", ok)
        add("rdb_bgsave_in_progress", "gauge", "1: saving now.", persistence.in_progress)
        changes = persistence.changes_since_save
        add("rdb_changes_since_last_save", "gauge", "Changes not on disk.", changes)
        add(
            "unsaved_age_seconds", "gauge", "Age of the oldest change not on disk.", persistence.age
        )
        since = persistence.failing_since or 0
        add(
            "saving_failing_since_seconds",
            "gauge",
            "When saving began to fail; 0: it works.",
            since,
        )
        moment = persistence.last_save
        add("rdb_last_save_timestamp_seconds", "gauge", "Time of the last save.", moment)
    return "\n".join(lines) + "\n"


def _add_times(add: Callable[[str, str, str, Samples], None], instance: Instance) -> None:
    """Add how often each command was called, and how long it took, since somebody first asked."""
    times = sorted(instance.overseer.command_times().items())
    calls: Samples = [(f'{{cmd="{name}"}}', each.calls) for name, each in times]
    add("commands_total", "counter", "Calls by command, since the first question.", calls)
    seconds: Samples = [(f'{{cmd="{name}"}}', each.nanoseconds / 1e9) for name, each in times]
    add("commands_duration_seconds_total", "counter", "How long these took.", seconds)
    total = instance.overseer.times.buckets()
    quantiles: Samples = [
        (f'{{quantile="{percent / 100:g}"}}', percentile(total, percent) / 1e6)
        for percent in (50, 99)
        if total
    ]
    add("request_duration_seconds", "gauge", "Within which so many requests were done.", quantiles)
