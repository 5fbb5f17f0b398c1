"""What the server did lately: a sample each second, so that the page has charts from the start.

Kept are five minutes by the second and one hour in spans of twelve seconds, about 100 kB at most.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from kvdb.commands.instance import Instance
from kvdb.commands.standing import PROTOCOLS
from kvdb.latency import Buckets, percentile
from kvdb.memory import resident_bytes

RATES: Final = (
    "requests", *PROTOCOLS, "received_bytes", "sent_bytes", "hits", "misses", "evicted", "expired",
    "rejected",
)  # fmt: skip
"""Columns that count how often something happened, per second; requests also by protocol."""

GAUGES: Final = ("keys", "used_bytes", "resident_bytes", "clients", "unsaved_seconds")
"""Columns that tell how much there is of something."""

TIMES: Final = ("mean_microseconds", "p50_microseconds", "p99_microseconds")
"""How long requests took: null if none was timed. They are from the first look at the page on."""

COLUMNS: Final = ("at", *RATES, *GAUGES, *TIMES)
"""`at` is in Unix seconds."""

KEPT: Final = 300
"""Samples of each kind: five minutes of seconds, one hour of spans."""

SPAN: Final = 12
"""Samples that are joined into one for the hour."""

_LEAST_GROWTH: Final = 60  # seconds from which on growth means something

Sample = dict[str, float | None]


class History:
    """The samples. `_lock` guards the two rings; one thread at a time calls `sample()`."""

    def __init__(
        self, instance: Instance, resident: Callable[[], int | None] = resident_bytes
    ) -> None:
        """Moments are read from the instance's clocks. `resident()` returns bytes of memory."""
        self._instance = instance
        self._resident = resident
        self._lock = threading.Lock()
        self._seconds: deque[tuple[float, Sample, str]] = deque(maxlen=KEPT)
        self._spans: deque[tuple[float, Sample, str]] = deque(maxlen=KEPT)
        self._span: list[Sample] = []
        self._counted_at = instance.monotonic()
        self._counted = self._counters()
        self._buckets: Buckets = {}  # of the times of all calls

    def sample(self) -> None:
        """Add what has happened since the last call. Called about once a second."""
        instance = self._instance
        now, counted = instance.monotonic(), self._counters()
        elapsed = now - self._counted_at
        if elapsed <= 0:
            return
        risen = [_rise(old, new) for old, new in zip(self._counted, counted, strict=True)]
        self._counted_at, self._counted = now, counted
        *rates, calls, nanoseconds = risen
        before, self._buckets = self._buckets, instance.overseer.times.buckets() if calls else {}
        sample: Sample = {"at": round(instance.store.clock(), 3)}
        sample |= {name: round(n / elapsed, 2) for name, n in zip(RATES, rates, strict=True)}
        sample["keys"] = instance.store.total_keys
        sample["used_bytes"] = instance.store.used_bytes
        sample["resident_bytes"] = self._resident()
        sample["clients"] = len(instance.sessions())
        persistence = instance.persistence
        sample["unsaved_seconds"] = round(persistence.age, 1) if persistence else None
        sample |= dict.fromkeys(TIMES)
        if calls:
            sample["mean_microseconds"] = round(nanoseconds / calls / 1000, 1)
            lately = _risen(before, self._buckets)
            sample["p50_microseconds"] = percentile(lately, 50)
            sample["p99_microseconds"] = percentile(lately, 99)
        self._span.append(sample)
        with self._lock:
            self._seconds.append(_row(sample))
            if len(self._span) == SPAN:
                self._spans.append(_row(_joined(self._span)))
                self._span = []

    def last(self, count: int) -> list[Sample]:
        """Return up to so many of the latest samples by the second, oldest first."""
        with self._lock:
            return [sample for _, sample, _ in list(self._seconds)[-count:]]

    def last_moment(self) -> float | None:
        """Return when the latest sample was taken, in Unix seconds."""
        with self._lock:
            return self._seconds[-1][0] if self._seconds else None

    def growth(self, gauge: str) -> float | None:
        """Return by how much a gauge has grown per second, in the last hour or for as long as is known.

        None if that is less than a minute.
        """
        with self._lock:
            kept = [*list(self._spans)[:1], *list(self._seconds)[:1], *list(self._seconds)[-1:]]
        if not kept:
            return None
        (begin, first, _), (end, last, _) = min(kept, key=lambda row: row[0]), kept[-1]
        if end - begin < _LEAST_GROWTH:
            return None
        return ((last[gauge] or 0) - (first[gauge] or 0)) / (end - begin)

    def render(self, since: float = 0.0) -> str:
        """Return JSON of the samples that are younger than a moment, in Unix seconds.

        Rows were written when they came, so that this costs little however many there are.
        """
        with self._lock:
            seconds = ",".join(row for at, _, row in self._seconds if at > since)
            spans = ",".join(row for at, _, row in self._spans if at > since)
        return f'{{"columns":{json.dumps(COLUMNS)},"seconds":[{seconds}],"spans":[{spans}]}}'

    def _counters(self) -> list[int]:
        """Return what RATES are made of, then calls that were timed and their nanoseconds."""
        instance, store = self._instance, self._instance.store
        times, counts = instance.overseer.times.all().values(), instance.counts()
        return [
            counts["commands"],
            *(counts[f"commands {protocol}"] for protocol in PROTOCOLS),
            counts["received"],
            counts["sent"],
            store.hits,
            store.misses,
            store.evicted_keys,
            store.expired_keys,
            instance.connections_rejected,
            sum(each.calls for each in times),
            sum(each.nanoseconds for each in times),
        ]


def _rise(old: int, new: int) -> int:
    """Return what was added to a counter; CONFIG RESETSTAT may have set it back to 0."""
    return new - old if new >= old else new


def _risen(old: Buckets, new: Buckets) -> Buckets:
    """Return the calls that were added; CONFIG RESETSTAT may have emptied the buckets."""
    risen = {bucket: count - old.get(bucket, 0) for bucket, count in new.items()}
    return risen if min(risen.values(), default=0) >= 0 else new


def _row(sample: Sample) -> tuple[float, Sample, str]:
    row = json.dumps([sample[name] for name in COLUMNS], separators=(",", ":"))
    return sample["at"] or 0.0, sample, row


def _joined(samples: list[Sample]) -> Sample:
    """Return one sample for several: means of what was counted, the last of what there was.

    Of the 99th percentiles it is the longest.
    """
    joined = dict(samples[-1])
    for name in (*RATES, *TIMES):
        numbers = [number for sample in samples if (number := sample[name]) is not None]
        joined[name] = round(sum(numbers) / len(numbers), 2) if numbers else None
    # What most requests took is a mean of means; the slow ones count.
    joined["p99_microseconds"] = max(s["p99_microseconds"] or 0.0 for s in samples) or None
    return joined
