"""What the page shows of clients and of slow requests, as JSON."""

from __future__ import annotations

import json
from typing import Any, Final

from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.http.visible import visible

MOST_CLIENTS: Final = 200
"""Clients in one answer: those who were active last."""

MOST_REQUESTS: Final = 50
"""Slow requests in one answer: the latest."""


def render_clients(instance: Instance) -> bytes:
    """Return JSON of the clients that were active last, and how many there are."""
    sessions, now = instance.sessions(), instance.monotonic()
    sessions.sort(key=lambda session: session.last_active, reverse=True)
    shown = [_client(session, now) for session in sessions[:MOST_CLIENTS]]
    return json.dumps({"clients": shown, "total": len(sessions)}).encode() + b"\n"


def _client(session: Session, now: float) -> dict[str, Any]:
    return {
        "id": session.id,
        "address": session.address,
        "name": visible(session.name),
        "library": visible(session.library_name),
        "protocol": session.protocol,
        "user": visible(session.user.name),
        "db": session.db,
        "age_seconds": int(now - session.started_at),
        "idle_seconds": int(now - session.last_active),
        "requests": session.commands,
        "last_command": session.last_command,
        "held_bytes": session.held,
    }


def render_slow_requests(instance: Instance) -> bytes:
    """Return JSON of the latest requests that took long, and from when on one counts as slow."""
    shown = [
        {
            "at": round(each.at, 3),
            "microseconds": each.microseconds,
            "request": " ".join(map(visible, each.words)),
            "address": each.address,
            "name": visible(each.name),
        }
        for each in instance.overseer.slow_log.latest(MOST_REQUESTS)
    ]
    threshold = instance.config.slow_log_threshold
    return json.dumps({"requests": shown, "threshold_microseconds": threshold}).encode() + b"\n"
