"""How long things take: the latency monitor's spikes, and the times of each command."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Final, NamedTuple

_SAMPLES: Final = 160  # of an event, as in Redis
_ROWS: Final = 4  # of a graph
_COLUMNS: Final = 80
Buckets = dict[tuple[int, int], int]
"""How many calls there were by how long they took: see `Times`."""

_TOPS: Final = "_o#"  # of a column of a graph: how far it reaches into its highest row


class Sample(NamedTuple):
    """A spike: when it was, in Unix seconds, and how long."""

    at: int
    milliseconds: int


class LatencyMonitor:
    """Spikes by event: whatever took at least the threshold. `_lock` guards all of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[str, deque[Sample]] = {}
        self._worst: dict[str, int] = {}

    def add(self, event: str, at: float, milliseconds: int) -> None:
        """Note a spike. Of several in one second, the worst counts."""
        with self._lock:
            samples = self._samples.setdefault(event, deque(maxlen=_SAMPLES))
            self._worst[event] = max(self._worst.get(event, 0), milliseconds)
            if samples and samples[-1].at == int(at):
                milliseconds = max(milliseconds, samples.pop().milliseconds)
            samples.append(Sample(int(at), milliseconds))

    def latest(self) -> list[tuple[str, Sample, int]]:
        """Return, for each event, its name, its last spike, and the worst of all times."""
        with self._lock:
            return [
                (event, samples[-1], self._worst[event]) for event, samples in self._samples.items()
            ]

    def history(self, event: str) -> list[Sample]:
        """Return the spikes of an event, the oldest first."""
        with self._lock:
            return list(self._samples.get(event, ()))

    def worst(self, event: str) -> int:
        """Return the longest spike of an event, in milliseconds."""
        with self._lock:
            return self._worst.get(event, 0)

    def reset(self, events: tuple[str, ...]) -> int:
        """Forget these events, or all if none is named; return how many there were."""
        with self._lock:
            chosen = [event for event in events or tuple(self._samples) if event in self._samples]
            for event in set(chosen):
                del self._samples[event], self._worst[event]
            return len(set(chosen))


def draw(event: str, samples: list[Sample], worst: int, now: float) -> str:
    """Return spikes as columns of text with their ages below, as Redis draws them."""
    shown = samples[-_COLUMNS:]
    high = max(sample.milliseconds for sample in shown)
    low = min(sample.milliseconds for sample in shown)
    title = f"{event} - high {high} ms, low {low} ms (all time high {worst} ms)"
    lines = [title, "-" * _COLUMNS]
    steps = len(_TOPS) * _ROWS
    span = (high - low) or 1
    heights = [min((sample.milliseconds - low) * steps // span, steps - 1) for sample in shown]
    for row in reversed(range(_ROWS)):
        above = [height - row * len(_TOPS) for height in heights]
        lines.append("".join(" " if each < 0 else (_TOPS + "|")[min(each, 3)] for each in above))
    lines.append(" " * len(shown))
    ages = [_age(int(now) - sample.at) for sample in shown]
    longest = max(map(len, ages))
    lines += ["".join(column) for column in zip(*(age.ljust(longest) for age in ages), strict=True)]
    return "\n".join(lines) + "\n"


def _age(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def percentile(buckets: Buckets, percent: float) -> float:
    """Return the microseconds within which so many of these calls were carried out."""
    wanted = sum(buckets.values()) * percent / 100
    seen, microseconds = 0, 0.0
    for (shift, part), count in sorted(buckets.items()):
        seen += count
        microseconds = (((part + 1) << shift) - 1) / 1000
        if seen >= wanted:
            break
    return microseconds


class Times:
    """The times of one command, with an error of less than 2 % (a histogram of nanoseconds).

    As in Redis's: within each power of two, 64 equal buckets.
    """

    def __init__(self) -> None:
        self.calls = self.failed = self.rejected = 0
        self.nanoseconds = 0
        self.buckets: Buckets = {}

    def add(self, nanoseconds: int) -> None:
        """Count a call that took so long."""
        self.calls += 1
        self.nanoseconds += nanoseconds
        shift = max(0, nanoseconds.bit_length() - 7)
        bucket = shift, nanoseconds >> shift
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def percentile(self, percent: float) -> float:
        """Return the microseconds within which so many of all calls were carried out."""
        return percentile(self.buckets, percent)

    def cumulative(self) -> dict[int, int]:
        """Return how many calls took at most so many microseconds, as LATENCY HISTOGRAM has it.

        Buckets are powers of two in units of 1.024 microseconds; where nothing was added to the
        one before, a bucket is left out.
        """
        found: dict[int, int] = {}
        seen, limit = 0, 1024
        for (shift, part), count in sorted(self.buckets.items()):
            while (part << shift) > limit:
                limit *= 2
            seen += count
            found[(limit + limit // 128 - 1) // 1000] = seen
        return found


class CommandTimes:
    """The times of all commands. `_lock` guards them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, Times] = {}

    def add(self, command: str, seconds: float, failed: bool) -> None:
        """Count a call."""
        with self._lock:
            times = self._times.setdefault(command, Times())
            times.add(max(0, round(seconds * 1e9)))
            times.failed += failed

    def reject(self, command: str) -> None:
        """Count a request that was refused before it was carried out."""
        with self._lock:
            self._times.setdefault(command, Times()).rejected += 1

    def reset(self) -> None:
        """Start anew."""
        with self._lock:
            self._times.clear()

    def buckets(self) -> Buckets:
        """Return the times of the calls of all commands together."""
        with self._lock:
            total: Counter[tuple[int, int]] = Counter()
            for times in self._times.values():
                total.update(times.buckets)
            return total

    def all(self) -> dict[str, Times]:
        """Return the times by command; they go on counting."""
        with self._lock:
            return dict(self._times)
