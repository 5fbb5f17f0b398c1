"""The state of one client's conversation, and the place where its requests are carried out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any

from kvdb import errors
from kvdb.commands.clients import Unsent
from kvdb.commands.instance import Instance
from kvdb.commands.permissions import (
    permit,
    permit_again,
    permit_named,
    refuse_on_replica,
    refuse_while_busy,
)
from kvdb.commands.standing import ERROR_COUNT as ERROR_COUNT
from kvdb.commands.standing import LONG_LINE as LONG_LINE
from kvdb.commands.standing import Standing
from kvdb.commands.table import QUICK_WORDS, TABLE, Command, Named, Operation, find
from kvdb.commands.waiting import TakesLong as TakesLong
from kvdb.errors import CommandError, OutOfMemory
from kvdb.pause import Waiting
from kvdb.pubsub import ALLOWED, Form, refuse_while_subscribed
from kvdb.replies import NO_REPLY, QUEUED, Pushes, Reply
from kvdb.resp.encoding import encode_reply
from kvdb.resp.requests import Run
from kvdb.store.entry import key_in
from kvdb.tracking import Tracker

log = logging.getLogger(__name__)


class Session(Standing):
    """The state of one client's conversation. One thread at a time uses it; others only look.

    What others do to it is `close()` and `push()`, which may come at any moment.
    """

    # Ten thousand of them take a third of what they would with a dict each.
    __slots__ = (
        "__weakref__", "address", "close", "closing", "db", "form", "held", "id",
        "last_active", "last_command", "library_name", "library_version",
        "local_address", "name", "no_evict", "no_touch", "outgoing", "penalty", "push", "recall",
        "saw", "silent", "skip_next", "skipping", "started_at", "tracker",
        "version", "waiting", "wrote",
    )  # fmt: skip

    def __init__(
        self,
        instance: Instance,
        address: str = "",
        local_address: str = "",
        close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(instance)
        self.address, self.local_address = address, local_address
        self.close = close
        self.push: Callable[[bytes], None] = _nowhere
        """Sends the client what it has not asked for. Any thread may call it."""
        self.recall: Callable[[], bytes] = bytes
        """Takes back what was pushed and is not on its way yet, to be sent with a reply."""
        self.outgoing: Unsent | None = None  # what waits to be sent to it
        self.form: Form = encode_reply  # what is subscribed to now comes in it
        self.id = 0  # given by Instance.admit()
        # Where replies wait for the disk: the step of the change feed that the last request was,
        # 0 if it has changed nothing, and the last step that its answer can have seen.
        self.wrote = self.saw = 0
        self.waiting: Waiting | None = None  # for this, with a request that has come
        self.started_at = self.last_active = instance.monotonic()
        self.last_command = "NULL"
        self.library_name = self.library_version = b""
        self.closing = False  # end the connection once the reply is sent
        self.penalty = 0.0  # seconds that the next replies are to be held back
        self.held = 0  # bytes, as Instance.accounts has them
        self.tracker: Tracker | None = None  # it wants to be told when keys change
        self.reset()

    def take_penalty(self) -> float:
        """Return how long the next replies are to be held back, once."""
        penalty, self.penalty = self.penalty, 0.0
        return penalty

    @property
    def only_listens(self) -> bool:
        """Whether a reply to this request could be taken for a message. JSON tells them apart."""
        return bool(self.subscriptions) and self.version == 2 and self.form is encode_reply

    def reset(self) -> None:
        """Go back to the state of a new connection (RESET)."""
        self.end_everything()
        self.become(self.instance.users.default, self.instance.users.default.rules.is_open)
        self.db = 0
        self.version = 2  # of RESP
        self.name = b""
        # What CLIENT REPLY has asked for: no reply at all, none to this request, none to the next.
        self.silent = self.skipping = self.skip_next = False
        self.no_touch = self.no_evict = False
        self.ordinary = self._is_ordinary()

    def end_everything(self) -> None:
        """As end_transaction(); forget what waits for a COMMIT, too."""
        self.end_transaction()
        if (writes := self.end_writes()) is not None:
            writes.release()
        self.instance.hub.leave(self)
        self.instance.tracking.stop(self)
        self.instance.overseer.remove_monitor(self)

    def execute(self, request: list[bytes]) -> Reply:
        """Carry out one request and return its reply; a refusal is returned, not raised.

        It is counted where a handler is called: as in Redis, not if there is no such command, or
        if it may not be run, and what MULTI has queued when EXEC carries it out.
        Raises TakesLong.
        """
        if self.ordinary:
            row = TABLE.get(request[0])
            if row is not None and row.ordinary and row.least < len(request) <= row.most_words:
                # Fast path: `ordinary` already implies the checks below.
                try:
                    return self.perform(row, row.handler, self, request[1:], request)
                except CommandError as error:
                    return self.counted(error)
                except TakesLong:
                    raise
                except Exception:
                    return self.counted(internal_error(row.name))
        before = self.skipping, self.skip_next
        self.skipping, self.skip_next = self.skip_next, False
        try:
            reply = self._execute(request)
        except TakesLong:
            self.skipping, self.skip_next = before
            raise
        if self.tracker is not None:
            self.tracker.end_request(request[0], self.transaction is not None)
        self.ordinary = self._is_ordinary()
        if self.restricted or self.instance.holds_back:  # because of another thread, just now
            self.ordinary = False
        # What confirms a subscription is sent all the same, as in Redis.
        hidden = (self.silent or self.skipping) and type(reply) is not Pushes
        return NO_REPLY if hidden else reply

    def perform(
        self,
        operation: Operation,
        handler: Callable[..., Any],
        who: Any,
        arguments: Iterable[Any],
        request: Any = None,
    ) -> Any:
        """Carry out one request: the place that all of them pass, whatever their dialect.

        Calls handler(who, *arguments); returns and raises what that does. `request` is what the
        operation's `needs` is asked about, and what is shown of it to who watches. Raises
        CommandError if the user may not do that.
        """
        self.commands += 1
        self.last_command = operation.wire_name
        try:
            if self.plain:
                return handler(who, *arguments)
            if isinstance(operation, Named):
                self.commands -= 1  # not if it may not be done
                permit_named(self, operation, request)
                self.commands += 1
            if self.is_seen:
                see = self.instance.overseer.see
                return see(self, operation, handler, who, arguments, request)
            return self.carry_out(operation, handler, who, arguments)
        except TakesLong:
            self.commands -= 1  # it will come once more
            raise

    def carry_out(
        self, operation: Operation, handler: Callable[..., Any], who: Any, arguments: Iterable[Any]
    ) -> Any:
        """As perform(), for that alone, and for who watches it."""
        if not self.notes_steps:
            return handler(who, *arguments)
        return self._perform_noting_step(operation, handler, who, arguments)

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
        if row.least != len(run.columns) or row.many is None or self.restricted:
            return [self.execute([run.name, *each]) for each in zip(*run.columns, strict=True)]
        try:
            replies: list[Reply] = self.perform(row, row.many, self, run.columns)
        except TakesLong:
            raise
        except Exception:
            replies = [internal_error(row.name)] * requests
        self.commands += requests - 1
        if not row.reads:
            self.count_refusals(replies)
        return replies

    def _is_ordinary(self) -> bool:
        """Tell whether a command on keys needs nothing but its handler.

        Only other commands change what this depends on.
        """
        return (
            self.authenticated
            and self.transaction is None
            and not self.instance.loading
            and not self.db
            and self.subscriptions is None
            and not (self.silent or self.skipping or self.skip_next or self.no_touch)
            and not (self.restricted or self.instance.holds_back)
            and (self.tracker is None or self.tracker.only_listens)
        )

    def refuse(self, error: CommandError) -> Reply:
        """Return the reply to a request that its dialect had to refuse (too long, badly formed)."""
        if self.transaction:
            self.transaction.aborted = True
        self.skipping, self.skip_next = self.skip_next, False
        self.counted(error)
        return NO_REPLY if self.silent or self.skipping else error.as_reply()

    def _execute(self, request: list[bytes]) -> Reply:
        row = None
        try:
            row, arguments = self._find(request)
            if (
                self.instance.paused and not self.follows
            ):  # before a thread is asked for, or it is queued
                self.instance.overseer.hold(self, row, request)
            if self.transaction is None or row.at_once:
                is_long = row.slow or len(arguments) > QUICK_WORDS
                self.take_leisure(is_long and not row.runs_script)
                return self.perform(row, Session.call, self, (row, arguments), request)
            self.last_command = row.wire_name
            self.transaction.append(row, arguments, self.instance.config.max_request_bytes)
            return QUEUED
        except CommandError as error:
            if row is None and self.instance.overseen:
                self.instance.overseer.rejected(request)
            return self.counted(error)
        except TakesLong:
            raise
        except Exception:
            return self.counted(internal_error(row.name if row else "the command table"))

    def _find(self, request: list[bytes]) -> tuple[Command, list[bytes]]:
        """Return the command and its arguments if it may be run or queued now."""
        try:
            row, arguments = find(request)
            if not self.authenticated and not row.anyone:
                raise CommandError(errors.NOT_AUTHENTICATED)
            if self.restricted:
                permit(self, row, arguments)
            if self.only_listens and row.name not in ALLOWED:
                raise refuse_while_subscribed(row.wire_name)
            if self.instance.loading and row.waits_for_data:
                raise CommandError(errors.LOADING)
            if not row.allow_busy:
                refuse_while_busy(self)
            if row.writes:
                refuse_on_replica(self)
            if self.transaction and row.not_queued:
                raise CommandError(errors.NOT_INSIDE_MULTI)
            if self.transaction and row.grows and self.store.is_full:
                raise OutOfMemory
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
            if self.restricted:
                permit_again(self, row, arguments)
            if self.is_seen:
                return self.instance.overseer.see_queued(self, row, arguments)
            return self.call(row, arguments)
        except Exception as error:
            self.counted(
                error if isinstance(error, CommandError) else CommandError(errors.INTERNAL)
            )
            raise

    def call(self, row: Command, arguments: list[bytes]) -> Reply:
        """Call a command's handler, with its keys as the store has them."""
        given: list[Any] = arguments
        if self.db:
            given = list(arguments)
            for position in row.find_keys(given):
                given[position] = key_in(self.db, given[position])
        if (tracker := self.tracker) is not None and (row.reads or row.writes):
            read = [arguments[each] for each in row.find_keys(arguments) if row.reads]
            handle = functools.partial(self._handle, row, given)
            return tracker.carry_out(handle, read, row.writes, row.is_step)
        return self._handle(row, given)

    def _handle(self, row: Command, given: list[Any]) -> Reply:
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
