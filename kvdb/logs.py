"""The log: written by a thread of its own, and not line by line for what strangers do.

Whoever reads our standard error may stop doing so (a pipe that nobody empties): then lines are
dropped and counted, and nobody who serves clients waits.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

_MOST_WAITING: Final = 1_000
"""Lines that may wait to be written; the rest is dropped and counted."""

_AT_THE_END: Final = 1.0
"""Seconds that the last lines have to be written."""

MINUTE: Final = 60.0

_WORDS: Final = logging.Formatter()  # the text and, if there is one, the traceback


def _moment(record: logging.LogRecord) -> str:
    """Return when something was logged: in UTC, as RFC 3339 has it, to the millisecond."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.created % 1 * 1000):03d}Z"


class TextLines(logging.Formatter):
    """`2026-11-26T17:44:26.123Z INFO main port: listening ...`"""

    def format(self, record: logging.LogRecord) -> str:
        return f"{_moment(record)} {record.levelname} {super().format(record)}"


class JsonLines(logging.Formatter):
    """One JSON object per line: `time`, `level`, `part` (of the server) and `message`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "part": record.name,
            "message": super().format(record),
        }
        return json.dumps(line, ensure_ascii=False)


class QueuedLog(logging.Handler):
    """Hands records to a thread that writes them with another handler; never waits.

    Until begin() lines are held back. The queue is a SimpleQueue because a signal handler may log,
    whatever its thread is doing.
    """

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._queue: queue.SimpleQueue[logging.LogRecord | threading.Event] = queue.SimpleQueue()
        self._most = _MOST_WAITING
        self._dropped = 0  # a sum that is not exact does no harm
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def begin(self, log_format: str = "text") -> None:
        """Write what has been logged, and from now on everything: as `text` or as `json`."""
        self._target.setFormatter(JsonLines() if log_format == "json" else TextLines())
        self._begun.set()

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's lock: the very thread that a signal interrupts may hold it."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Called by whoever logs."""
        if self._queue.qsize() >= self._most:
            self._dropped += 1
            return
        # Put into words now: what the arguments refer to may be another by the time it is written.
        record = copy.copy(record)
        record.msg, record.args = _WORDS.format(record), None
        record.exc_info = record.exc_text = record.stack_info = None
        self._queue.put(record)

    def _write(self) -> None:
        self._begun.wait()
        while True:
            record = self._queue.get()
            if isinstance(record, threading.Event):
                record.set()
                continue
            with contextlib.suppress(Exception):
                self._target.handle(record)
            if self._dropped and self._queue.empty():
                dropped, self._dropped = self._dropped, 0
                with contextlib.suppress(Exception):
                    self._target.handle(_dropped_record(dropped))

    def finish(self) -> None:
        """Wait until everything that was logged is written, but not for long."""
        if not self._begun.is_set():
            self.begin()
        written = threading.Event()
        self._queue.put(written)
        written.wait(_AT_THE_END)


def _dropped_record(count: int) -> logging.LogRecord:
    text = "%d lines of the log were dropped, because nobody read it"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (count,), None)


class SparseLog:
    """Logs the first of a kind, then at most one line a minute with how many there were.

    `_lock` guards the counts.
    """

    _MOST_KINDS: Final = 1_000  # counted apart: strangers may have many addresses

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}  # when the last line was, how many since

    def warn(self, log: logging.Logger, kind: str, text: str) -> None:
        """Log this, unless something of that kind was logged within the last minute."""
        now = self._monotonic()
        with self._lock:
            last, more = self._kinds.get(kind, (-MINUTE, 0))
            if now < last + MINUTE:
                self._kinds[kind] = (last, more + 1)
                return
            if len(self._kinds) >= self._MOST_KINDS:
                self._kinds.clear()
            self._kinds[kind] = (now, 0)
        if more:
            text += f" ({more:,} more like this since the last line)"
        log.warning("%s", text)
