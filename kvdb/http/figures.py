"""The figures of the page: a verdict in plain words, tiles, and all of it as numbers."""

from __future__ import annotations

import json
import platform
from typing import Any, Final

import kvdb
from kvdb.commands.info import keeps_journal
from kvdb.commands.instance import Instance
from kvdb.http.history import RATES, TIMES, History, Sample
from kvdb.memory import resident_bytes
from kvdb.replication.primary import BACKLOG_BYTES
from kvdb.store.budget import EvictionPolicy

FINE: Final = "fine"
ATTENTION: Final = "attention"
TROUBLE: Final = "trouble"

_VERDICTS: Final = {
    FINE: "Everything is fine",
    ATTENTION: "Needs attention",
    TROUBLE: "In trouble",
}

_NEARLY: Final = 90  # percent of a limit that deserve attention
_FULL: Final = 99  # percent of the budget at which writes fail if nothing may be evicted
_SILENT: Final = 10  # seconds; a replica says every second how far it is
_LATELY: Final = 60  # seconds that a hit rate is told of
_FORESEEN: Final = 30 * 86400  # seconds ahead that a growth says something about


def judge(instance: Instance, history: History) -> tuple[str, list[str]]:
    """Return FINE, ATTENTION or TROUBLE, and sentences that say why (none if it is fine)."""
    trouble: list[str] = []
    attention: list[str] = []
    persistence, store = instance.persistence, instance.store
    if persistence and persistence.last_error:
        since = persistence.failing_since
        ago = f" (failing for {duration_text(store.clock() - since)})" if since else ""
        trouble.append(f"The last save failed{ago}: {persistence.last_error}")
    if dead := instance.dead_threads():
        trouble.append(f"Background threads have died: {', '.join(dead)}")
    if store.max_bytes:
        percent = 100 * store.used_bytes // store.max_bytes
        if percent >= _FULL and store.policy is EvictionPolicy.NOEVICTION:
            trouble.append(f"{percent} % of the budget is used and nothing may be evicted")
        elif percent >= _NEARLY:
            attention.append(f"{percent} % of the budget is used{_until_full(instance, history)}")
    lately = history.last(300)
    if turned_away := round(_sum(lately, "rejected")):
        clients = "client was" if turned_away == 1 else "clients were"
        attention.append(f"{turned_away:,} {clients} turned away in the last five minutes")
    sessions, most = len(instance.sessions()), instance.config.max_clients
    if 100 * sessions >= _NEARLY * most:
        attention.append(f"{sessions:,} of {most:,} clients are connected")
    if instance.congested:
        attention.append("Writers wait for the disk")
    attention += _out_of_step(instance)
    level = TROUBLE if trouble else ATTENTION if attention else FINE
    return level, trouble + attention


def _out_of_step(instance: Instance) -> list[str]:
    """Say what is wrong between us and our primary or our replicas."""
    reasons = []
    standby, replication = instance.standby, instance.replication
    if standby is not None and standby.state != "connected":
        host, port = standby.primary[:2]
        down = duration_text(instance.monotonic() - standby.down_since)
        reasons.append(f"No link to the primary {host}:{port} for {down}")
    for replica, _, seconds in replication.lags():
        if replica.state != "online" or not replica.acknowledges:
            continue
        # Not what it has not acknowledged yet: under steady writes that is much, a second's worth.
        waiting = replica.client.unsent_bytes
        if seconds >= _SILENT or waiting >= BACKLOG_BYTES:
            host, port = replica.address
            reasons.append(
                f"The replica {host}:{port} is behind: {bytes_text(waiting)} wait for it,"
                f" last heard {duration_text(seconds)} ago"
            )
    return reasons


def _until_full(instance: Instance, history: History) -> str:
    """Say when the budget will be used up, if entries go on growing as they did lately."""
    growth, store = history.growth("used_bytes"), instance.store
    left = store.max_bytes - store.used_bytes
    if not growth or growth <= 0 or left <= 0 or left / growth > _FORESEEN:
        return ""
    return f" and, as it grows now, full in about {rough_duration_text(left / growth)}"


def figures(instance: Instance, history: History) -> dict[str, Any]:
    """Return all that the page shows of the server, but for the history."""
    store, persistence = instance.store, instance.persistence
    level, reasons = judge(instance, history)
    now = dict.fromkeys(RATES, 0.0) | (history.last(1) or [{}])[0]
    lately = history.last(_LATELY)
    sizes = store.sizes()
    shown: dict[str, Any] = {
        "time": round(store.clock(), 3),
        "kvdb_version": kvdb.__version__,
        "python_version": platform.python_version(),
        "uptime_seconds": int(instance.monotonic() - instance.started_at),
        "verdict": {
            "level": level,
            "reasons": reasons,
            "text": ": ".join(filter(None, (_VERDICTS[level], "; ".join(reasons)))),
        },
        "per_second": {name: now[name] for name in RATES},
        **_latencies(lately),
        "hit_rate": _share(store.hits, store.misses),
        "hit_rate_lately": _share(_sum(lately, "hits"), _sum(lately, "misses")),
        "keys": sum(keys for keys, _, _ in sizes.values()),
        "keys_expiring": sum(expiring for _, expiring, _ in sizes.values()),
        "databases": {str(db): {"keys": n, "expiring": e} for db, (n, e, _) in sizes.items()},
        "used_bytes": store.used_bytes,
        "max_bytes": store.max_bytes,
        "resident_bytes": resident_bytes(),
        "clients": len(instance.sessions()),
        "max_clients": instance.config.max_clients,
        "rejected_clients": instance.connections_rejected,
        "keyspace_hits": store.hits,
        "keyspace_misses": store.misses,
        "evicted_keys": store.evicted_keys,
        "expired_keys": store.expired_keys,
        "durability": _durability(instance),
        "unsaved_age_seconds": round(persistence.age, 3) if persistence else None,
        "last_save": round(persistence.last_save, 3) if persistence else None,
        "changes_since_save": persistence.changes_since_save if persistence else None,
    }
    if persistence:
        shown["persistence"] = {
            "kind": "journal" if keeps_journal(instance) else "snapshot",
            "file": str(persistence.path),
            "in_progress": persistence.in_progress,
            "last_duration_seconds": persistence.last_duration,
            "saves": persistence.saves,
            "error": persistence.last_error,
            "failing_since": persistence.failing_since,
        }
    shown["tiles"] = _tiles(shown)
    return shown


def _latencies(samples: list[Sample]) -> dict[str, float | None]:
    """Return how long requests took in the last second in which any was timed."""
    timed = [sample for sample in samples if sample["mean_microseconds"] is not None]
    return {name: timed[-1][name] if timed else None for name in TIMES}


def render_figures(instance: Instance, history: History, since: float = 0.0) -> str:
    """Return JSON: the figures, and the history after a moment in Unix seconds."""
    head = json.dumps(figures(instance, history))
    return f'{head[:-1]}, "history": {history.render(since)}}}\n'


def _tiles(shown: dict[str, Any]) -> list[dict[str, str]]:
    """Return the tiles as texts: their names, labels, values and remarks."""
    per_second = shown["per_second"]
    lately, ever = shown["hit_rate_lately"], shown["hit_rate"]
    used, budget = shown["used_bytes"], shown["max_bytes"]
    median, slow = shown["p50_microseconds"], shown["p99_microseconds"]
    resident = shown["resident_bytes"]
    age, turned_away = shown["unsaved_age_seconds"], shown["rejected_clients"]
    rows = (
        ("requests", "Requests per second", rate_text(per_second["requests"]),
         "of all protocols"),
        ("latency", "Time of a request", "–" if median is None else microseconds_text(median),
         "measured while this page is open" if slow is None
         else f"the median; 99 % within {microseconds_text(slow)}"),
        ("hit-rate", "Hit rate", percent_text(lately if lately is not None else ever),
         f"last minute; {percent_text(ever)} since the start" if lately is not None
         else "since the start" if ever is not None else "nothing was read so far"),
        ("keys", "Keys", f"{shown['keys']:,}", f"{shown['keys_expiring']:,} with a TTL"),
        ("budget", "Budget used", f"{100 * used / budget:.1f} %" if budget else bytes_text(used),
         f"{bytes_text(used)} of {bytes_text(budget)}" if budget else "there is no budget"),
        ("resident", "Resident memory", "unknown" if resident is None else bytes_text(resident),
         "of the whole process"),
        ("clients", "Clients", f"{shown['clients']:,}",
         f"of {shown['max_clients']:,}; {turned_away:,} turned away"),
        ("evicted", "Evicted per second", rate_text(per_second["evicted"]),
         f"{shown['evicted_keys']:,} in all"),
        ("expired", "Expired per second", rate_text(per_second["expired"]),
         f"{shown['expired_keys']:,} in all"),
        ("at-risk", "Writes at risk", "all" if age is None else duration_text(age),
         shown["durability"]),
        ("uptime", "Uptime", duration_text(shown["uptime_seconds"]),
         f"kvdb {shown['kvdb_version']}, Python {shown['python_version']}"),
    )  # fmt: skip
    names = ("name", "label", "value", "remark")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _durability(instance: Instance) -> str:
    """Say how changes get to the disk."""
    if instance.persistence is None:
        return "in memory only"
    if keeps_journal(instance):
        return f"journal, fsync {instance.config.fsync}"
    interval = instance.config.snapshot_interval
    return f"saved every {duration_text(interval)}" if interval else "saved on request"


def bytes_text(number: float) -> str:
    """Return a number of bytes for people: 1.5 MB."""
    if number < 1024:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1024
        if number < 1024:
            return f"{number:.3g} {unit}" if number < 999.5 else f"{number:.0f} {unit}"
    return f"{number / 1024:,.1f} TB"


def duration_text(seconds: float) -> str:
    """Return a duration for people: 2 h 5 min."""
    whole = round(seconds)
    for unit, smaller, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60)):
        if whole >= size:
            rest = whole % size // part
            return (
                f"{whole // size:,} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
            )
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole} s"


def rough_duration_text(seconds: float) -> str:
    """Return a duration for people, rounded: 4 hours."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size):,} {unit}"
    return "a minute"


def microseconds_text(number: float) -> str:
    """Return a time for people: 25 µs, 1.5 ms."""
    for unit in ("µs", "ms"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} s"


def rate_text(number: float) -> str:
    """Return how often something happens in a second."""
    return f"{number:,.1f}" if 0 < number < 10 and number % 1 else f"{number:,.0f}"


def percent_text(share: float | None) -> str:
    """Return a share of 1 as a percentage; what is not known as a dash."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _share(hits: float, misses: float) -> float | None:
    return round(hits / (hits + misses), 4) if hits + misses else None


def _sum(samples: list[Sample], name: str) -> float:
    return sum(sample[name] or 0 for sample in samples)
