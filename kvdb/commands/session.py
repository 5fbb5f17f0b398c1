"""What a conversation needs: the state of one client, and what all of them share."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from kvdb import errors
from kvdb.commands.table import TABLE, Command, find
from kvdb.config import Config
from kvdb.errors import CommandError
from kvdb.memory import Governor
from kvdb.persistence import Persistence
from kvdb.pipelines import Run
from kvdb.replies import NO_REPLY, QUEUED, Reply
from kvdb.store import Store
from kvdb.store.entry import Key, key_in
from kvdb.writes import PendingWrites

log = logging.getLogger(__name__)


class Instance:
    """What the sessions of one server share: store, configuration, the list of sessions.

    `_lock` guards the registry of sessions and the counters beside it. It is never held
    together with the store's lock.
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
        self.governor: Governor | None = None  # in a whole server
        self.request_stop = request_stop
        self.started_at, self.started_time = (
            monotonic(),
            store.clock(),
        )  # the latter in Unix seconds
        self.run_id = secrets.token_hex(20)  # 40 characters that name this run of the server
        self._lock = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._next_id = itertools.count(1)
        self._ended: Counter[str] = Counter()  # counts of the sessions that have ended
        self._before_reset: Counter[str] = Counter()  # what CONFIG RESETSTAT leaves out
        self._operations_sample = (monotonic(), 0)
        self.operations_per_second = 0.0
        self.connections_received = 0
        self.connections_rejected = 0

    # --- sessions ------------------------------------------------------------------------

    def admit(self, session: Session) -> bool:
        """Add a session to the registry, unless there are too many; tell which."""
        with self._lock:
            self.connections_received += 1
            if len(self._sessions) >= self.config.max_clients:
                self.connections_rejected += 1
                return False
            session.id = next(self._next_id)
            self._sessions[session.id] = session
            return True

    def dismiss(self, session: Session) -> None:
        """Take an ended session out of the registry; what it held is released."""
        session.end_transaction()
        with self._lock:
            if self._sessions.pop(session.id, None):
                self._ended.update(session.totals())

    def sessions(self) -> list[Session]:
        """Return the sessions that are open now, oldest first."""
        with self._lock:
            return list(self._sessions.values())

    def end_idle_sessions(self) -> None:
        """End the sessions that have been silent for longer than the idle timeout."""
        timeout = self.config.idle_timeout
        if timeout:
            silent_since = self.monotonic() - timeout
            for session in self.sessions():
                if session.last_active < silent_since:
                    log.info(
                        "client %s: silent for more than %g s, ended", session.address, timeout
                    )
                    session.close()

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
        counts = self.counts()
        with self._lock:
            self._before_reset.update(counts)
            self._operations_sample = (self.monotonic(), 0)
            self.connections_received = self.connections_rejected = 0

    def housekeeping(self) -> None:
        """One pass of what has to be looked after about every second."""
        self.end_idle_sessions()
        for session in self.sessions():
            if writes := session.writes:
                writes.end_if_idle()
        now, operations = self.monotonic(), self.counts()["commands"]
        with self._lock:
            then, before = self._operations_sample
            self._operations_sample = (now, operations)
            self.operations_per_second = max(0.0, (operations - before) / max(now - then, 0.001))

    # --- access --------------------------------------------------------------------------

    def password_is(self, password: bytes) -> bool:
        """Tell whether this is the password, in a time that does not depend on the answer.

        Where no password is set, any will do.
        """
        if self.config.password is None:
            return True
        expected = self.config.password.encode()
        return hmac.compare_digest(
            hashlib.sha256(password).digest(), hashlib.sha256(expected).digest()
        )


class Transaction:
    """What MULTI has queued so far."""

    def __init__(self) -> None:
        self.queue: list[tuple[Command, list[bytes]]] = []
        self.aborted = False  # an error while queueing: EXEC will refuse
        self._bytes = 0

    def append(self, row: Command, arguments: list[bytes], max_bytes: int) -> None:
        """Queue a command. Raises CommandError if that makes the transaction too large."""
        # A queued command takes about 200 bytes beside its arguments.
        self._bytes += 200 + sum(len(argument) + 40 for argument in arguments)
        if self._bytes > max_bytes:
            self.aborted = True
            self.queue.clear()
            raise CommandError(f"ERR the transaction is larger than {max_bytes} bytes")
        self.queue.append((row, arguments))


class Session:
    """The state of one client's conversation. Its own thread uses it; others only look.

    What others do to it is `close()`, which may come at any moment.
    """

    def __init__(
        self,
        instance: Instance,
        address: str = "",
        local_address: str = "",
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.instance = instance
        self.store: Store = instance.store
        self.address, self.local_address = address, local_address
        self.close = close
        self.id = 0  # given by Instance.admit()
        # Only the session's own thread counts here; sums over all sessions are a moment old.
        self.commands = self.received = self.sent = 0  # the latter two in bytes
        self.counts: Counter[str] = Counter()  # what a dialect counts for its statistics
        self.started_at = self.last_active = instance.monotonic()
        self.last_command = "NULL"
        self.library_name = self.library_version = b""
        self.closing = False  # end the connection once the reply is sent
        self.watched: dict[Key, int] = {}  # key -> its version when it was watched
        self.transaction: Transaction | None = None
        self.writes: PendingWrites | None = None  # of an interactive transaction
        self.reset()

    def reset(self) -> None:
        """Go back to the state of a new connection (RESET)."""
        self.end_transaction()
        self.authenticated = self.instance.config.password is None
        self.db = 0
        self.version = 2  # of RESP
        self.name = b""
        # What CLIENT REPLY has asked for: no reply at all, none to this request, none to the next.
        self.silent = self.skipping = self.skip_next = False
        self.no_touch = self.no_evict = False
        self.ordinary = self._is_ordinary()

    def end_transaction(self) -> None:
        """Forget what is queued, what is watched, and what waits for a COMMIT."""
        self.transaction = None
        self.writes = None
        self.unwatch()

    def start_writes(self) -> None:
        """Begin an interactive transaction (START)."""
        limit = self.instance.config.max_request_bytes
        self.writes = PendingWrites(limit, self.instance.monotonic)

    def unwatch(self) -> None:
        """Forget what is watched."""
        for key in self.watched:
            self.store.unwatch(key)
        self.watched.clear()

    def execute(self, request: list[bytes]) -> Reply:
        """Carry out one request and return its reply; a refusal is returned, not raised."""
        self.commands += 1
        if self.ordinary:
            row = TABLE.get(request[0])
            if row is not None and row.ordinary and row.least < len(request) <= row.most_words:
                # Nearly every request comes this way: nothing is asked of it that is known.
                self.last_command = row.wire_name
                try:
                    return row.handler(self, *request[1:])
                except CommandError as error:
                    return error
                except Exception:
                    return internal_error(row.name)
        self.skipping, self.skip_next = self.skip_next, False
        reply = self._execute(request)
        self.ordinary = self._is_ordinary()
        return NO_REPLY if self.silent or self.skipping else reply

    def execute_run(self, run: Run) -> list[Reply] | None:
        """Carry out a run of requests together; return their replies.

        None if this has to be done one by one, because of the command or the session's state.
        """
        row = TABLE.get(run.name)
        if row is None or row.many is None or row.least != len(run.columns) or not self.ordinary:
            return None
        self.commands += len(run.columns[0])
        self.last_command = row.wire_name
        try:
            return row.many(self, *run.columns)
        except Exception:
            return [internal_error(row.name)] * len(run.columns[0])

    def _is_ordinary(self) -> bool:
        """Tell whether a command on keys needs nothing but its handler.

        Only other commands change what this depends on.
        """
        return (
            self.authenticated
            and self.transaction is None
            and not self.db
            and not (self.silent or self.skipping or self.skip_next or self.no_touch)
        )

    def totals(self) -> Counter[str]:
        """Return all that this session has counted. Any thread may ask."""
        totals = self.counts.copy()  # a copy: the session's own thread goes on counting
        totals.update(commands=self.commands, received=self.received, sent=self.sent)
        return totals

    def refuse(self, error: CommandError) -> Reply:
        """Return the reply to a request that its dialect had to refuse (too long, badly formed)."""
        if self.transaction:
            self.transaction.aborted = True
        self.skipping, self.skip_next = self.skip_next, False
        return NO_REPLY if self.silent or self.skipping else error

    def _execute(self, request: list[bytes]) -> Reply:
        row = None
        try:
            row, arguments = self._find(request)
            if self.transaction is None or row.at_once:
                return self.run(row, arguments)
            self.transaction.append(row, arguments, self.instance.config.max_request_bytes)
            return QUEUED
        except CommandError as error:
            return error
        except Exception:
            return internal_error(row.name if row else "the command table")

    def _find(self, request: list[bytes]) -> tuple[Command, list[bytes]]:
        """Return the command and its arguments if it may be run or queued now."""
        try:
            row, arguments = find(request)
            if not self.authenticated and not row.anyone:
                raise CommandError(errors.NOT_AUTHENTICATED)
            if self.transaction and row.not_queued:
                raise CommandError(errors.NOT_INSIDE_MULTI)
        except CommandError as error:
            if request[0].upper() == b"EXEC":  # it ends the transaction, whatever is wrong
                self.end_transaction()
                reason = error.text.removeprefix("ERR ")
                raise CommandError(errors.TRANSACTION_ABORTED_BY + reason) from None
            if self.transaction:
                self.transaction.aborted = True
            raise
        self.last_command = row.wire_name
        return row, arguments

    def run(self, row: Command, arguments: list[bytes]) -> Reply:
        """Call a command's handler, with its keys as the store has them."""
        given: list[Any] = arguments
        if self.db:
            given = list(arguments)
            for position in row.key_positions(len(given)):
                given[position] = key_in(self.db, given[position])
        if self.no_touch and row.touches:
            with self.store.without_touching():
                return row.handler(self, *given)
        return row.handler(self, *given)


def internal_error(where: str) -> CommandError:
    """Log the exception being handled; return the reply. No arguments: they may be secrets."""
    log.exception("internal error in %s", where)
    return CommandError(errors.INTERNAL)
