"""The state of one client's conversation, and the place where its requests are carried out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from kvdb import errors
from kvdb.commands.instance import Instance
from kvdb.commands.pending_writes import PendingWrites
from kvdb.commands.refusals import log_refusal
from kvdb.commands.table import QUICK_WORDS, TABLE, Command, Operation, find
from kvdb.commands.transaction import Transaction
from kvdb.errors import CommandError
from kvdb.replies import NO_REPLY, OK, QUEUED, Reply
from kvdb.resp.requests import Run
from kvdb.store import Store
from kvdb.store.entry import Key, key_in

log = logging.getLogger(__name__)

ERROR_COUNT: Final = "error "
"""Before the code word of an error in `Session.counts`."""

LONG_LINE: Final = 64 * 1024
"""Bytes of JSON above which they take long: half a millisecond."""


class TakesLong(Exception):
    """The request was not carried out: it takes long, and others would have to wait for it."""


class Session:
    """The state of one client's conversation. One thread at a time uses it; others only look.

    What others do to it is `close()` and `push()`, which may come at any moment.
    """

    # Ten thousand of them take a third of what they would with a dict each.
    __slots__ = (
        "__weakref__", "address", "at_leisure", "authenticated", "close", "closing", "commands",
        "counts", "db", "held", "id", "instance", "last_active", "last_command", "library_name",
        "library_version", "local_address", "name", "no_evict", "no_touch", "notes_steps",
        "ordinary", "penalty", "push", "received", "saw", "sent", "silent", "skip_next",
        "skipping", "started_at", "store", "transaction", "version", "watched", "watched_bytes",
        "writes", "wrote",
    )  # fmt: skip

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
        self.push: Callable[[bytes], None] = _nowhere
        """Sends the client what it has not asked for. Any thread may call it."""
        self.id = 0  # given by Instance.admit()
        # Only the session's own thread counts here; sums over all sessions are a moment old.
        self.commands = self.received = self.sent = 0  # the latter two in bytes
        self.at_leisure = True  # nobody else has to wait for what is carried out now
        # Where replies wait for the disk: the step of the change feed that the last request was,
        # 0 if it has changed nothing, and the last step that its answer can have seen.
        self.notes_steps = False
        self.wrote = self.saw = 0
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
    def queues(self) -> bool:
        """Whether queued_bytes is more than nothing."""
        return bool(self.transaction or self.writes or self.watched)

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
        Raises TakesLong.
        """
        if self.ordinary:
            row = TABLE.get(request[0])
            if row is not None and row.ordinary and row.least < len(request) <= row.most_words:
                # Nearly every request comes this way: nothing is asked of it that is known.
                try:
                    return self.perform(row, row.handler, self, request[1:])
                except CommandError as error:
                    return self._counted(error)
                except TakesLong:
                    raise
                except Exception:
                    return self._counted(internal_error(row.name))
        before = self.skipping, self.skip_next
        self.skipping, self.skip_next = self.skip_next, False
        try:
            reply = self._execute(request)
        except TakesLong:
            self.skipping, self.skip_next = before
            raise
        self.ordinary = self._is_ordinary()
        return NO_REPLY if self.silent or self.skipping else reply

    def perform(
        self, operation: Operation, handler: Callable[..., Any], who: Any, arguments: Iterable[Any]
    ) -> Any:
        """Carry out one request: the place that all of them pass, whatever their dialect.

        Calls handler(who, *arguments); returns and raises what that does.
        """
        self.commands += 1
        self.last_command = operation.wire_name
        try:
            if not self.notes_steps:
                return handler(who, *arguments)
            return self._perform_noting_step(operation, handler, who, arguments)
        except TakesLong:
            self.commands -= 1  # it will come once more
            raise

    def _perform_noting_step(
        self, operation: Operation, handler: Callable[..., Any], who: Any, arguments: Iterable[Any]
    ) -> Any:
        if not operation.is_step:
            try:
                return handler(who, *arguments)
            finally:
                self.saw = self.store.step
        with self.store.atomic():
            try:
                return handler(who, *arguments)
            finally:
                self.wrote = self.store.step_under_way
                self.saw = self.wrote or self.store.step

    def execute_run(self, run: Run) -> list[Reply]:
        """Carry out requests of a command in RUN_NAMES together, and return their replies.

        The session must be in its ordinary state.
        """
        row, requests = TABLE[run.name], len(run.columns[0])
        if row.least != len(run.columns) or row.many is None:
            return [self.execute([run.name, *each]) for each in zip(*run.columns, strict=True)]
        try:
            replies: list[Reply] = self.perform(row, row.many, self, run.columns)
        except Exception:
            replies = [internal_error(row.name)] * requests
        self.commands += requests - 1
        if not row.reads:
            self._count_refusals(replies)
        return replies

    def take_leisure_for(self, key: Key) -> None:
        """As take_leisure(), if the key's value is a large one that has to be encoded."""
        if not self.at_leisure and (self.store.cost(key) or 0) > LONG_LINE:
            raise TakesLong

    def take_leisure(self, needed: bool = True) -> None:
        """Say, before anything is done, that what follows takes long. Raises TakesLong."""
        if needed and not self.at_leisure:
            raise TakesLong

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
        if self.authenticated:
            log_refusal(self, code, error.text)
        return error.as_reply()

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
                self.take_leisure(row.slow or len(arguments) > QUICK_WORDS)
                return self.perform(row, Session._call, self, (row, arguments))
            self.last_command = row.wire_name
            self.transaction.append(row, arguments, self.instance.config.max_request_bytes)
            return QUEUED
        except CommandError as error:
            return self._counted(error)
        except TakesLong:
            raise
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
        return row, arguments

    def run(self, row: Command, arguments: list[bytes]) -> Reply:
        """Carry out one command of a transaction. Raises what its handler raises."""
        self.commands += 1
        try:
            return self._call(row, arguments)
        except Exception as error:
            self._counted(
                error if isinstance(error, CommandError) else CommandError(errors.INTERNAL)
            )
            raise

    def _call(self, row: Command, arguments: list[bytes]) -> Reply:
        """Call a command's handler, with its keys as the store has them."""
        given: list[Any] = arguments
        if self.db:
            given = list(arguments)
            for position in row.key_positions(len(given)):
                given[position] = key_in(self.db, given[position])
        if self.no_touch and row.touches:
            with self.store.atomic(touching=False):
                return row.handler(self, *given)
        return row.handler(self, *given)


def _nowhere(data: bytes) -> None:
    """What push() does before there is a connection, and once it has ended."""


def internal_error(where: str) -> CommandError:
    """Log the exception being handled; return the reply. No arguments: they may be secrets."""
    log.exception("internal error in %s", where)
    return CommandError(errors.INTERNAL)
