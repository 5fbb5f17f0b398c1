"""Who wants to see every request: the slow log, monitors, the latency monitor, a pause, a test.

As long as nobody does, nothing is measured and no request pays for it: `Session.plain` is asked
anyway. What the slow log catches by default is another matter: two readings of the clock would
cost every request 100 ns. So what is known to take long, which has a thread of its own, is always
timed. Requests that the event loop carries out itself cannot take 10 ms unless something is
wrong: the loop looks at the clock after each round, and when a round has taken longer than the
slow log's threshold, each request is timed for a while. So of quick requests that are slow, the
first may go unnoticed; those after it do not. With a threshold below 10 ms every request is timed.

How often each command was called, and how long that took, is noted from the first question on
(INFO commandstats): who watches a server asks again and again.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kvdb.commands.table import ADMIN, TABLE, Command, Named, Operation, find
from kvdb.commands.waiting import MustWait, TakesLong
from kvdb.errors import CommandError
from kvdb.latency import CommandTimes, LatencyMonitor, Times
from kvdb.monitors import Monitors
from kvdb.pause import Held, Pause
from kvdb.slowlog import SlowLog
from kvdb.spelling import HIDDEN

if TYPE_CHECKING:
    from kvdb.commands.instance import Instance
    from kvdb.commands.session import Session

NEVER_QUICK: Final = 10_000
"""Microseconds that no request takes which is carried out by the event loop itself."""

_CLOSELY: Final = 10.0  # seconds for which each request is timed after a long round
_PAUSE: Final = 50.0  # seconds for which it is not, after that: a busy server has long rounds
_INTEREST: Final = 600.0  # seconds for which commands are counted after somebody asked for that

Intervention = Callable[["Session", Operation, Any, Callable[[], Any]], Any]
"""Called with a session, an operation, the request as its dialect has it, and what carries it out;
returns and raises what that would, or something else."""

_MAY_REPLICATE: Final = frozenset(("PUBLISH", "SPUBLISH", "EVAL", "EVALSHA"))
"""What a pause of writes holds, too, as in Redis, though it does not say that it writes."""


class Overseer:
    """Sees requests if somebody wants to. `_lock` orders the changes of who does."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._config = instance.config
        self._monotonic = instance.monotonic
        self._lock = threading.RLock()
        self._closely_since: float | None = None  # when a long round was seen
        self._asked_at: float | None = None  # when somebody wanted to know the times of commands
        self._for_a_while = False, False  # whether update() has found the one and the other recent
        self._counts_commands = False
        # Seconds from which on a request is slow, is a spike, and is looked at at all.
        self._slow = self._spike = self._least = math.inf
        self.slow_log = SlowLog(instance.config.slow_log_length)
        self.latency = LatencyMonitor()
        self.times = CommandTimes()
        self.monitors = Monitors()
        self.pause = Pause(instance.monotonic)
        self.intervene: Intervention | None = None
        """Decides what becomes of each request: a test wants some of them to go wrong. Call
        update() after setting it."""
        self.on_round_limit: Callable[[float | None], None] = lambda seconds: None
        """Called with how long a round of the event loop may take before long_round() is called;
        None: as long as it likes."""

    # --- who wants to see ----------------------------------------------------------------

    def update(self) -> None:
        """Find out anew whether anybody wants to see every request."""
        with self._lock:
            config, instance = self._config, self._instance
            threshold, spike = config.slow_log_threshold, config.latency_threshold
            self._slow = threshold / 1e6 if threshold >= 0 else math.inf
            self._spike = spike / 1000 if spike else math.inf
            self._for_a_while = close, asked = self._is_close(), self._is_asked()
            self._counts_commands = config.latency_tracking or asked
            notes_all = bool(self.monitors or self._counts_commands)
            self._least = 0.0 if notes_all else min(self._slow, self._spike)
            instance.paused = self.pause.is_noted
            instance.overseen = (
                notes_all or instance.paused or 0 <= threshold < NEVER_QUICK or bool(spike) or close
                or self.intervene is not None
            )  # fmt: skip
            self.on_round_limit(None if threshold < 0 else self._slow)
            for session in self._instance.sessions():
                session.look_around()

    def _is_close(self) -> bool:
        since = self._closely_since
        return since is not None and self._monotonic() - since < _CLOSELY

    def _is_asked(self) -> bool:
        asked_at = self._asked_at
        return asked_at is not None and self._monotonic() - asked_at < _INTEREST

    def command_times(self) -> dict[str, Times]:
        """Return how long the calls of each command took, and note that somebody wants to know."""
        self._asked_at = self._monotonic()
        if not self._counts_commands:
            self.update()
        return self.times.all()

    def long_round(self) -> None:
        """A round of the event loop has taken long: time each request for a while."""
        since = self._closely_since
        if since is None or self._monotonic() - since >= _CLOSELY + _PAUSE:
            self._closely_since = self._monotonic()
            self.update()

    def housekeeping(self) -> None:
        """One pass of what is to be done about every second: end what has run out."""
        if self.pause.is_noted and not self.pause.held:
            self.end_pause()
        elif self._for_a_while != (self._is_close(), self._is_asked()):
            self.update()

    def add_monitor(self, session: Session) -> None:
        """Show this client every request from now on."""
        self.monitors.add(session)
        self.update()

    def remove_monitor(self, session: Session) -> None:
        """Show it no more."""
        if session in self.monitors:
            self.monitors.remove(session)
            self.update()

    def begin_pause(self, held: Held, seconds: float) -> None:
        """Hold requests from now on."""
        self.pause.begin(held, seconds)
        self.update()

    def end_pause(self) -> None:
        """Let everything go on."""
        self.pause.end()
        self.update()

    # --- what is seen --------------------------------------------------------------------

    def hold(self, session: Session, operation: Operation, request: Any) -> None:
        """Raise MustWait if there is a pause that holds this request."""
        if not self.pause.is_noted:
            return
        held = self.pause.held
        if held is Held.NOTHING:
            self.end_pause()
        elif held is Held.ALL:
            if operation.is_step or isinstance(operation, Command):
                raise MustWait(self.pause.wait())
        elif _may_write(session, operation, request):
            raise MustWait(self.pause.wait())

    def see(
        self,
        session: Session,
        operation: Operation,
        handler: Callable[..., Any],
        who: Any,
        arguments: Iterable[Any],
        request: Any,
    ) -> Any:
        """Have a session carry out a request, and note it down."""
        if self._instance.paused and isinstance(operation, Named):
            self.hold(session, operation, request)
        intervene = self.intervene
        begin = self._monotonic()
        try:
            if intervene is None:
                reply = session.carry_out(operation, handler, who, arguments)
            else:
                carry_out = partial(session.carry_out, operation, handler, who, arguments)
                reply = intervene(session, operation, request, carry_out)
        except TakesLong:
            raise  # it will come once more
        except BaseException:
            words = _words(operation, who, arguments, request)
            self._note(session, operation, words, self._monotonic() - begin, failed=True)
            raise
        seconds = self._monotonic() - begin
        if seconds >= self._least:
            words = _words(operation, who, arguments, request)
            self._note(session, operation, words, seconds, isinstance(reply, CommandError))
        return reply

    def see_queued(self, session: Session, row: Command, arguments: list[bytes]) -> Any:
        """As see(), for a request that MULTI had queued; it is under the store's lock."""
        request = [*row.name.encode().split(), *arguments]
        return self.see(session, row, type(session).call, session, (row, arguments), request)

    def rejected(self, request: list[bytes]) -> None:
        """Note that a request was refused before it was carried out."""
        row = TABLE.get(request[0].upper())
        if row is not None and self._counts_commands:
            if len(request) > 1:
                row = row.subcommands.get(request[1].upper(), row)
            self.times.reject(row.wire_name)

    def _note(
        self,
        session: Session,
        operation: Operation,
        words: Iterable[bytes],
        seconds: float,
        failed: bool,
    ) -> None:
        is_slow = seconds >= self._slow and operation.wire_name != "exec"
        is_shown = self.monitors and not (
            isinstance(operation, Command) and ADMIN in operation.flags
        )
        if self._counts_commands:
            self.times.add(operation.wire_name, seconds, failed)
        if seconds >= self._spike:
            takes_long = isinstance(operation, Command) and operation.slow
            event = "command" if takes_long else "fast-command"
            self.latency.add(event, self._instance.store.clock(), round(seconds * 1000))
        if is_slow or is_shown:
            at, shown = self._instance.store.clock(), list(words)
            if is_shown:
                self.monitors.tell(at, session.db, session.address, shown)
            if is_slow:
                microseconds = round(seconds * 1e6)
                self.slow_log.add(at, microseconds, shown, session.address, session.name)


def _may_write(session: Session, operation: Operation, request: Any) -> bool:
    """Tell whether a request is held while writes are."""
    if isinstance(operation, Named):
        return any(find(words)[0].writes for words in operation.needs(request))
    assert isinstance(operation, Command)
    if operation.name == "EXEC" and session.transaction is not None:
        return any(_writes(row) for row, _ in session.transaction.queue)
    return _writes(operation)


def _writes(row: Command) -> bool:
    return row.writes or row.name in _MAY_REPLICATE


def _words(operation: Operation, who: Any, arguments: Any, request: Any) -> Iterator[bytes]:
    """Yield the words of a request, of whatever dialect it is; not before they are asked for."""
    if operation.wire_name == "auth" and not isinstance(operation, Command):
        yield from (b"AUTH", HIDDEN)  # of whatever form, there is nothing to be shown
        return
    if isinstance(request, list):
        yield from _flat(request)
    else:
        if isinstance(operation, Command):
            yield from operation.name.encode().split()
        yield from _flat(arguments)
        if isinstance(request, dict):
            yield from _flat(list(request.values()))
    if isinstance(who, bytes):  # the data block of a memcached request
        yield who


def _flat(what: Any) -> Iterator[bytes]:
    if isinstance(what, bytes):
        yield what
    elif isinstance(what, str | int):
        yield str(what).encode("utf-8", "replace")
    elif isinstance(what, list | tuple):
        for each in what:
            yield from _flat(each)
    else:
        yield from getattr(what, "words", ())
