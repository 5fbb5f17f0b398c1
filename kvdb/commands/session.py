"""What a conversation needs: the state of one client, and what all of them share."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import logging
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from kvdb import errors
from kvdb.accounts import Accounts
from kvdb.commands.table import TABLE, Command, find
from kvdb.config import Config
from kvdb.errors import CommandError
from kvdb.guesses import Guesses
from kvdb.logs import SparseLog
from kvdb.memory import CONNECTION_BYTES, Governor
from kvdb.persistence import Persistence
from kvdb.pipelines import Run
from kvdb.prefixes import Prefixes
from kvdb.replies import NO_REPLY, OK, QUEUED, Reply
from kvdb.store import Store
from kvdb.store.entry import Key, key_in
from kvdb.writes import PendingWrites

log = logging.getLogger(__name__)

ERROR_COUNT: Final = "error "
"""Before the code word of an error in `Session.counts`."""


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
        self.loading = False  # the data file is being read: commands on keys are refused
        self.sparse_log = SparseLog(monotonic)  # for what strangers do
        self._guesses = Guesses(monotonic)
        self.prefixes = Prefixes()  # memcached's `stats detail`
        self.accesses_noted_since: float | None = None  # Unix seconds: see memcached_marks
        self.governor: Governor | None = None  # in a whole server
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

    def dismiss(self, session: Session) -> None:
        """Take an ended session out of the registry; what it held is released."""
        session.end_everything()
        self.accounts.report(session, 0)
        session.close = _nothing  # it leads to the connection, which leads to the session
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
        self.prefixes.reset()
        self.accounts.ended = 0
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
        self.store.drop_idle_indexes()
        for session in self.sessions():
            if writes := session.writes:
                writes.end_if_idle()
        now, operations = self.monotonic(), self.counts()["commands"]
        with self._lock:
            then, before = self._operations_sample
            self._operations_sample = (now, operations)
            self.operations_per_second = max(0.0, (operations - before) / max(now - then, 0.001))

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
        return self.accounts.held + self.store.index_bytes + saving + CONNECTION_BYTES * connections

    # --- access --------------------------------------------------------------------------

    def log_in(self, session: Session, password: bytes) -> bool:
        """Tell whether this is the password, in a time that does not depend on the answer.

        Where no password is set, any will do. Who guesses has to wait for each answer.
        """
        if self.config.password is None:
            session.authenticated = True
            return True
        expected = self.config.password.encode()
        if hmac.compare_digest(
            hashlib.sha256(password).digest(), hashlib.sha256(expected).digest()
        ):
            session.authenticated = True
            return True
        host = session.address.rsplit(":", 1)[0]
        session.penalty = self._guesses.wrong(host)
        self.sparse_log.warn(log, f"password {host}", f"client {session.address}: wrong password")
        return False


class Transaction:
    """What MULTI has queued so far."""

    def __init__(self) -> None:
        self.queue: list[tuple[Command, list[bytes]]] = []
        self.aborted = False  # an error while queueing: EXEC will refuse
        self.bytes = 0
        """What the queue takes, about."""

    def append(self, row: Command, arguments: list[bytes], max_bytes: int) -> None:
        """Queue a command. Raises CommandError if that makes the transaction too large."""
        # A queued command takes about 200 bytes beside its arguments.
        self.bytes += 200 + sum(len(argument) + 40 for argument in arguments)
        if self.bytes > max_bytes:
            self.aborted, self.bytes = True, 0
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
        self.penalty = 0.0  # seconds that the next replies are to be held back
        self.held = 0  # bytes, as Instance.accounts has them
        self.watched: dict[Key, int] = {}  # key -> its version when it was watched
        self.watched_bytes = 0  # what these take, about
        self.transaction: Transaction | None = None
        self.writes: PendingWrites | None = None  # of an interactive transaction
        self.reset()

    def take_penalty(self) -> float:
        """Return how long the next replies are to be held back, once."""
        penalty, self.penalty = self.penalty, 0.0
        return penalty

    @property
    def queued_bytes(self) -> int:
        """What MULTI or START have queued."""
        queued = self.transaction.bytes if self.transaction else 0
        return queued + self.watched_bytes + (self.writes.held_bytes if self.writes else 0)

    def reset(self) -> None:
        """Go back to the state of a new connection (RESET)."""
        self.end_everything()
        self.authenticated = self.instance.config.password is None
        self.db = 0
        self.version = 2  # of RESP
        self.name = b""
        # What CLIENT REPLY has asked for: no reply at all, none to this request, none to the next.
        self.silent = self.skipping = self.skip_next = False
        self.no_touch = self.no_evict = False
        self.ordinary = self._is_ordinary()

    def end_transaction(self) -> None:
        """Forget what MULTI has queued and what is watched."""
        self.transaction = None
        self.unwatch()

    def end_everything(self) -> None:
        """As end_transaction(); forget what waits for a COMMIT, too."""
        self.end_transaction()
        if (writes := self.end_writes()) is not None:
            writes.release()

    def start_writes(self) -> None:
        """Begin an interactive transaction (START)."""
        limit = self.instance.config.max_request_bytes
        self.writes = PendingWrites(self.store, limit, self.instance.monotonic)

    def end_writes(self) -> PendingWrites | None:
        """Take the interactive transaction out; None if none is open. Release what is returned."""
        writes, self.writes = self.writes, None
        return writes

    def unwatch(self) -> None:
        """Forget what is watched."""
        for key in self.watched:
            self.store.unwatch(key)
        self.watched.clear()
        self.watched_bytes = 0

    def execute(self, request: list[bytes]) -> Reply:
        """Carry out one request and return its reply; a refusal is returned, not raised.

        It is counted where a handler is called: as in Redis, not if there is no such command, or
        if it may not be run, and what MULTI has queued when EXEC carries it out.
        """
        if self.ordinary:
            row = TABLE.get(request[0])
            if row is not None and row.ordinary and row.least < len(request) <= row.most_words:
                # Nearly every request comes this way: nothing is asked of it that is known.
                self.commands += 1
                self.last_command = row.wire_name
                try:
                    return row.handler(self, *request[1:])
                except CommandError as error:
                    return self._counted(error)
                except Exception:
                    return self._counted(internal_error(row.name))
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
            replies = row.many(self, *run.columns)
        except Exception:
            replies = [internal_error(row.name)] * len(run.columns[0])
        if not row.reads:
            self._count_refusals(replies)
        return replies

    def _count_refusals(self, replies: list[Reply]) -> None:
        """Count the errors among the replies to a run; that there is none is found out quickly.

        Measured for runs of 50: no difference for SET and INCR that could be told from noise.
        """
        if replies[0] is OK and replies.count(OK) == len(replies):
            return
        if set(map(type, replies)) != {int}:
            for reply in replies:
                if isinstance(reply, CommandError):
                    self._counted(reply)

    def _counted(self, error: CommandError) -> CommandError:
        """Count an error by its code word (INFO errorstats); return it as a reply."""
        code = error.text.partition(" ")[0]
        self.counts[ERROR_COUNT + code] += 1
        if self.authenticated and (code == "OOM" or error.text.startswith("ERR unknown ")):
            self._log_refusal(code, error.text)
        return error.as_reply()

    def _log_refusal(self, code: str, text: str) -> None:
        """Say who cannot do what here: a framework seldom shows its user the error."""
        quoted = re.match(r"ERR (unknown \w+ '[A-Za-z._|-]{1,30}')[,.]", text)
        kind = quoted[1] if quoted else "unknown command" if code == "ERR" else code
        name = self.name.decode("ascii", "replace")
        library = f"{self.library_name.decode('ascii', 'replace')} "
        library += self.library_version.decode("ascii", "replace")
        known = ", ".join(filter(None, (name, library.strip())))
        client = f"client {self.address} ({known})" if known else f"client {self.address}"
        shown = kind if code == "ERR" else "a write was refused, because the budget is used up"
        self.instance.sparse_log.warn(log, f"refused {kind}", f"{client}: {shown}")

    def _is_ordinary(self) -> bool:
        """Tell whether a command on keys needs nothing but its handler.

        Only other commands change what this depends on.
        """
        return (
            self.authenticated
            and self.transaction is None
            and not self.instance.loading
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
        self._counted(error)
        return NO_REPLY if self.silent or self.skipping else error.as_reply()

    def _execute(self, request: list[bytes]) -> Reply:
        row = None
        try:
            row, arguments = self._find(request)
            if self.transaction is None or row.at_once:
                return self._call(row, arguments)
            self.transaction.append(row, arguments, self.instance.config.max_request_bytes)
            return QUEUED
        except CommandError as error:
            return self._counted(error)
        except Exception:
            return self._counted(internal_error(row.name if row else "the command table"))

    def _find(self, request: list[bytes]) -> tuple[Command, list[bytes]]:
        """Return the command and its arguments if it may be run or queued now."""
        try:
            row, arguments = find(request)
            if not self.authenticated and not row.anyone:
                raise CommandError(errors.NOT_AUTHENTICATED)
            if self.instance.loading and row.waits_for_data:
                raise CommandError(errors.LOADING)
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
        """Carry out one command of a transaction. Raises what its handler raises."""
        try:
            return self._call(row, arguments)
        except Exception as error:
            self._counted(
                error if isinstance(error, CommandError) else CommandError(errors.INTERNAL)
            )
            raise

    def _call(self, row: Command, arguments: list[bytes]) -> Reply:
        """Call a command's handler, with its keys as the store has them."""
        self.commands += 1
        given: list[Any] = arguments
        if self.db:
            given = list(arguments)
            for position in row.key_positions(len(given)):
                given[position] = key_in(self.db, given[position])
        if self.no_touch and row.touches:
            with self.store.without_touching():
                return row.handler(self, *given)
        return row.handler(self, *given)


def _nothing() -> None:
    """What close() does once a connection has ended."""


def internal_error(where: str) -> CommandError:
    """Log the exception being handled; return the reply. No arguments: they may be secrets."""
    log.exception("internal error in %s", where)
    return CommandError(errors.INTERNAL)
