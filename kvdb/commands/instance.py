"""What all sessions of one server share."""

from __future__ import annotations

import itertools
import logging
import math
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvdb.accounts import Accounts
from kvdb.acl import Denial, DenialLog, Reason, User, Users
from kvdb.commands.clients import describe
from kvdb.commands.overseer import Overseer
from kvdb.commands.script_calls import call_from_script, may_call
from kvdb.commands.table import REDIS_VERSION, TABLE
from kvdb.config import Config
from kvdb.guesses import Guesses
from kvdb.logs import SparseLog
from kvdb.memory import CONNECTION_BYTES, Governor
from kvdb.notifications import Notifications
from kvdb.persistence import Persistence
from kvdb.prefixes import Prefixes
from kvdb.pubsub import Hub
from kvdb.reaper import PlannedFlush
from kvdb.replication.primary import Replication
from kvdb.replication.standby import Standby
from kvdb.scripting.engine import Engine
from kvdb.store import Store
from kvdb.tracking import Tracking

if TYPE_CHECKING:
    from kvdb.commands.session import Session
    from kvdb.server.tls import Certificates

log = logging.getLogger(__name__)


class Instance:
    """What the sessions of one server share: store, configuration, the list of sessions.

    `_lock` guards the registry of sessions and the counters beside it. Whoever holds the store's
    lock may take this one, never the other way round.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        persistence: Persistence | None = None,
        request_stop: Callable[[bool], object] = lambda save: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`request_stop(save)` is called by SHUTDOWN; it returns at once.

        `monotonic` returns seconds since some moment: ages and idle times are measured with it.
        """
        self.monotonic = monotonic
        self.store = store
        self.config = config
        self.persistence = persistence
        self.loading = False  # the data file is being read: commands on keys are refused
        self.sparse_log = SparseLog(monotonic)  # for what strangers do
        self._guesses = Guesses(monotonic)
        self.users = Users(TABLE)
        if config.password is not None:
            self.users.set_password(config.password)
        self.denials = DenialLog(store.clock, lambda: self.config.acl_log_max_len)
        self.prefixes = Prefixes()  # memcached's `stats detail`
        self.planned_flush = PlannedFlush(store)  # memcached's flush_all with a delay
        self.accesses_noted_since: float | None = None  # Unix seconds: see memcached_marks
        self.hub = Hub()
        self.notifications = Notifications(store, self.hub)
        self.tracking: Tracking = Tracking(store, self.session)
        self.replication = Replication(store, lambda: self.config.output_limits.replica, monotonic)
        self.standby: Standby | None = None  # we follow another server
        self.governor: Governor | None = None  # in a whole server
        self.certificates: Certificates | None = None  # with them, every port speaks TLS
        self.accounts = Accounts(lambda: self.config.max_client_bytes, monotonic)
        self.background: list[threading.Thread] = []  # that have to live as long as the server
        self.most_clients: int | None = None  # that the system has descriptors for; None: unknown
        self.request_stop = request_stop
        self.started_at, self.started_time = (
            monotonic(),
            store.clock(),
        )  # the latter in Unix seconds
        self.run_id = secrets.token_hex(20)  # 40 characters that name this run of the server
        self._lock = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._connections = 0  # that have entered and not left; a moment later each has a session
        self._next_id = itertools.count(1)
        self._ended: Counter[str] = Counter()  # counts of the sessions that have ended
        self._before_reset: Counter[str] = Counter()  # what CONFIG RESETSTAT leaves out
        self._operations_sample = (monotonic(), 0)
        self.operations_per_second = 0.0
        self.connections_received = 0
        self.connections_rejected = 0
        self.ended_by_output_limit = 0  # written by the event loop only
        self.peak_bytes = 0  # the most that entries have taken, as far as anybody has looked
        self.expires_actively = True  # DEBUG SET-ACTIVE-EXPIRE
        # Written by `overseer` only: somebody wants to see each request; some have to wait.
        self.overseen = self.paused = False
        self.scripts = Engine(store, config, call_from_script, may_call, REDIS_VERSION, monotonic)
        self.scripts.on_busy = self._busy_changed
        self.overseer = Overseer(self)
        self.overseer.update()

    # --- sessions ------------------------------------------------------------------------

    def enter(self) -> bool:
        """Count a connection that was accepted, unless there are too many; tell which."""
        with self._lock:
            if self._connections >= self.config.max_clients:
                self.connections_rejected += 1
                return False
            self.connections_received += 1  # as in Redis, without those that were turned away
            self._connections += 1
            return True

    def leave(self) -> None:
        """Count the end of a connection that had entered."""
        with self._lock:
            self._connections -= 1

    def admit(self, session: Session) -> None:
        """Add a session to the registry."""
        with self._lock:
            session.id = next(self._next_id)
            self._sessions[session.id] = session
        session.look_around()  # somebody may have begun to watch since it was made

    def dismiss(self, session: Session) -> None:
        """Take an ended session out of the registry; what it held is released."""
        session.end_everything()
        self.accounts.report(session, 0)
        if session.replica is not None:
            self.replication.leave(session.replica)
            session.replica = None
        # They lead to the connection, which leads to the session.
        session.close, session.push, session.recall = _nothing, _nowhere, bytes
        session.outgoing = session.waiting = None
        with self._lock:
            if self._sessions.pop(session.id, None):
                self._ended.update(session.totals())

    def sessions(self) -> list[Session]:
        """Return the sessions that are open now, oldest first."""
        with self._lock:
            return list(self._sessions.values())

    def session(self, number: int) -> Session | None:
        """Return the session with this number, if it is open."""
        with self._lock:
            return self._sessions.get(number)

    def end_idle_sessions(self) -> None:
        """End the sessions that have been silent for longer than the idle timeout."""
        timeout = self.config.idle_timeout
        if timeout:
            silent_since = self.monotonic() - timeout
            for session in self.sessions():
                is_idle = session.last_active < silent_since
                if is_idle and session.waiting is None and not session.is_replica:
                    log.info(
                        "client %s: silent for more than %g s, ended", session.address, timeout
                    )
                    session.close()

    @property
    def holds_back(self) -> bool:
        """Whether some requests have to wait, or are refused because a script takes too long."""
        return self.paused or self.scripts.is_busy or self.standby is not None

    def _busy_changed(self) -> None:
        for session in self.sessions():
            session.look_around()

    # --- statistics ----------------------------------------------------------------------

    def counts(self) -> Counter[str]:
        """Return what all sessions have counted, since the last CONFIG RESETSTAT."""
        with self._lock:
            total = self._ended.copy()
            for session in self._sessions.values():
                total.update(session.totals())
            total.subtract(self._before_reset)
            return total

    def reset_statistics(self) -> None:
        """Start counting anew (CONFIG RESETSTAT)."""
        self.store.reset_statistics()
        self.prefixes.reset()
        self.accounts.ended = 0
        self.denials.reset_counts()
        self.overseer.times.reset()
        self.peak_bytes = 0
        if self.persistence:
            self.persistence.saves = 0
        counts = self.counts()
        with self._lock:
            self._before_reset.update(counts)
            self._operations_sample = (self.monotonic(), 0)
            self.operations_per_second = 0.0
            self.connections_received = self.connections_rejected = 0

    def housekeeping(self) -> None:
        """One pass of what has to be looked after about every second."""
        self.end_idle_sessions()
        self.accounts.relieve()
        self.overseer.housekeeping()
        self.replication.housekeeping()
        self.note_peak()
        self.store.drop_idle_indexes()
        for session in self.sessions():
            if writes := session.writes:
                writes.end_if_idle()
            if session.held and session.subscriptions:
                session.push(b"")  # has it look for how long so much has waited
        now, operations = self.monotonic(), self.counts()["commands"]
        with self._lock:
            then, before = self._operations_sample
            self._operations_sample = (now, operations)
            self.operations_per_second = max(0.0, (operations - before) / max(now - then, 0.001))

    @property
    def may_expire(self) -> bool:
        """Whether keys may be deleted before somebody asks for them: during a pause all stays."""
        return self.expires_actively and self.store.expires and not self.overseer.pause.held

    def note_peak(self) -> int:
        """Look how much entries take; return the most that they have taken."""
        self.peak_bytes = max(self.peak_bytes, self.store.used_bytes)
        return self.peak_bytes

    @property
    def threads(self) -> int:
        """How many threads the process has: one for each connection, and those behind them."""
        return threading.active_count()

    def dead_threads(self) -> list[str]:
        """Return the names of background threads that have ended though the server goes on."""
        return [thread.name for thread in self.background if not thread.is_alive()]

    def not_entries_bytes(self) -> int:
        """What is in memory beside entries, as far as there is an account of it."""
        saving = self.persistence.held_bytes if self.persistence else 0
        with self._lock:
            connections = len(self._sessions)
        held = self.accounts.held + self.store.index_bytes + self.tracking.held_bytes
        held += self.notifications.held_bytes + self.scripts.held_bytes
        held += self.replication.held_bytes
        return held + saving + CONNECTION_BYTES * connections

    # --- writers that wait ---------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether the disk, or who publishes what happens, has fallen behind: writers wait."""
        persistence = self.persistence
        return self.notifications.congested or (persistence is not None and persistence.congested)

    def longest_wait(self) -> float:
        """Return how long who has written waits at most, in seconds; the disk is told of it."""
        persistence = self.persistence
        if persistence is None or not persistence.congested:
            return math.inf
        persistence.hurry()
        return math.inf if self.notifications.congested else persistence.longest_wait

    def wait_for_room(self) -> None:
        """Wait as long as who has written has to."""
        self.notifications.wait_for_room()
        if self.persistence:
            self.persistence.wait_for_room()

    # --- access --------------------------------------------------------------------------

    def log_in(
        self, session: Session, password: bytes, name: bytes = b"default", through: bytes = b"AUTH"
    ) -> bool:
        """Have the session be this user if that is the password; tell whether it is.

        For a user without a password any will do. Who guesses has to wait for each answer.
        `through` is how the request was called.
        """
        if session.in_exec and session.penalty:
            return False  # one guess per reply: EXEC's other ones are not even tried
        user = self.users.authenticate(name, password)
        if user is not None:
            session.become(user)
            return True
        context = "toplevel" if session.transaction is None else "multi"
        self.denials.add(Denial(Reason.AUTH, through), context, name, describe(session))
        host = session.address.rsplit(":", 1)[0]
        session.penalty = self._guesses.wrong(host)
        self.sparse_log.warn(log, f"password {host}", f"client {session.address}: wrong password")
        return False

    def user_changed(self, user: User, by: Session | None = None) -> None:
        """Have the sessions of a user see that it may do something else now.

        Those that listen to what it may not hear any more end, as in Redis.
        """
        lets_in = user is self.users.default and user.rules.is_open
        for session in self.sessions():
            if session.user is user:
                session.look_around()
                if lets_in:
                    session.authenticated = True
                if (listens := session.subscriptions) and not user.rules.may_hear_all(
                    [*listens.channels, *listens.shards], list(listens.patterns)
                ):
                    self._end(session, by)

    def end_sessions_of(self, users: list[User], but: Session | None = None) -> None:
        """End the sessions of users that are gone; `but` ends once it is answered."""
        for session in self.sessions():
            if session.user in users:
                session.look_around()
                self._end(session, but)

    @staticmethod
    def _end(session: Session, by: Session | None) -> None:
        session.closing = True  # after the reply; another one carries out nothing more
        if session is not by:
            session.close()


def _nothing() -> None:
    """What close() does once a connection has ended."""


def _nowhere(data: bytes) -> None:
    """What push() does once a connection has ended."""
