"""The main port. The first byte of each request tells its dialect, so all of them mix freely.

`*` begins a RESP array, `{` a JSON line, anything else an inline command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvdb.commands.hints import with_hint
from kvdb.commands.session import Session
from kvdb.commands.table import RUN_NAMES, TABLE
from kvdb.errors import NOT_SAVED, TLS_HANDSHAKE, CommandError, NotOurProtocol, ProtocolError
from kvdb.protocols import Instead, RequestLoop
from kvdb.protocols.inline import next_inline_request
from kvdb.protocols.json_lines import answer, error_line
from kvdb.protocols.json_pushes import encode_push
from kvdb.resp.buffer import LineTooLong
from kvdb.resp.encoding import encode_each, encode_error, encode_pieces, encode_reply
from kvdb.resp.limits import MAX_LINE, STRANGERS_LINE
from kvdb.resp.requests import NotAnArray, RequestLimits, RequestParser, Run

# How many words a request has that is answered together with others. Not SET with options: it
# would be carried out one by one, so that not all is one step, which the disk keeps or refuses.
_RUNS = {name: TABLE[name].least + 1 for name in RUN_NAMES}


class Typed(list[bytes]):
    """The words of an inline command."""


class MainPort(RequestLoop):
    """One client's conversation on the main port."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._resp = RequestParser(self._buffer, RequestLimits())
        # What the limits were chosen for.
        self._authenticated, self._max_value = not session.authenticated, -1
        # Takes the line that is under way, if there is one; else the next byte decides.
        self._take_line: Callable[[], Any] | None = None

    def receive(self, data: bytes) -> bytes:
        """See `Dialect.receive`."""
        if self._max_value != self.session.instance.config.max_value_bytes:
            self._choose_limits()
        return super().receive(data)

    def end(self) -> None:
        """See `Dialect.end`. A line under way refers to us."""
        super().end()
        self._take_line = None
        self._resp = RequestParser(self._buffer, RequestLimits())

    def _answer_next(self) -> bytes | None:
        session = self.session
        if session.authenticated is not self._authenticated:
            self._choose_limits()
        try:
            if self._take_line is not None:
                request = self._take_line()
            else:
                try:
                    request = self._resp.next_request(
                        _RUNS if session.ordinary and not session.instance.overseen else {}
                    )
                    self._encodes_slowly = False
                except NotAnArray:
                    self._take_line = self._line_taker()
                    request = self._take_line()
        except CommandError as error:
            return encode_reply(session.refuse(error), session.version)
        except NotOurProtocol:
            raise
        except ProtocolError as error:
            self.closing = True
            return encode_reply(session.refuse(CommandError(f"ERR Protocol error: {error}")))
        except LineTooLong:
            self.closing = True
            return error_line("the line is too long")
        if request is None:
            return None
        self._take_line = None
        self._last = request
        return self._answer_last()

    def _answer_last(self) -> bytes | None:
        request, session = self._last, self.session
        kind = type(request)
        if kind is list:
            if not request:
                return b""  # an empty request: as if it had not come
            reply = session.execute(request)
            if type(reply) is list:
                return self._in_batches(encode_pieces(reply, session.version))
            return encode_reply(reply, session.version)
        if kind is Typed:
            return self._answer_typed(request) if request else b""
        if kind is Run:
            return self._in_batches(encode_each(session.execute_run(request), session.version))
        session.form = encode_push  # what is subscribed to by a JSON line comes as JSON lines
        try:
            return self._in_batches(answer(session, request))
        finally:
            session.form = encode_reply

    def _answer_typed(self, words: Typed) -> bytes:
        """Answer what a person may have typed: an error says what may help."""
        reply, session = self.session.execute(words), self.session
        if type(reply) is list:
            return self._in_batches(encode_pieces(reply, session.version))
        if isinstance(reply, CommandError):
            reply = with_hint(words, reply)
        return encode_reply(reply, session.version)

    def _instead(self) -> Instead | None:
        session, last = self.session, self._last
        name, _, subcommand = session.last_command.upper().encode().partition(b"|")
        row = TABLE.get(name)
        if row is not None and subcommand:
            row = row.subcommands.get(subcommand)
        works_on_keys = row is not None and (row.reads or row.writes)
        ends = session.last_command in ("exec", "commit")  # there is nothing to be repeated
        if session.transaction is not None or not (ends or works_on_keys):
            return None  # queued, or nothing to do with keys
        make = error_line if type(last) is bytes else encode_error
        replies = len(last.columns[0]) if type(last) is Run else 1

        def again() -> bytes:
            self._last = last
            return self._answer_last() or b""

        return Instead(
            lambda reason: make(NOT_SAVED + reason) * replies,
            None if ends else again,
            only_reads=row is not None and row.reads,
        )

    def _choose_limits(self) -> None:
        """Hold strangers to narrow limits, as Redis does, and others to the configured ones."""
        config = self.session.instance.config
        max_value = config.max_value_bytes
        self._authenticated, self._max_value = self.session.authenticated, max_value
        self._resp.limits = (
            RequestLimits(max_value=max_value, max_request=config.max_request_bytes)
            if self.session.authenticated
            else RequestLimits.before_authentication()
        )

    # --- lines ---------------------------------------------------------------------------

    def _line_taker(self) -> Callable[[], Any]:
        first = self._buffer.first_byte()
        if first == TLS_HANDSHAKE:
            raise NotOurProtocol("a TLS handshake on the main port")
        self._encodes_slowly = first == ord("{")  # JSON
        return self._take_json if self._encodes_slowly else self._take_inline

    def _take_inline(self) -> Typed | None:
        words = next_inline_request(self._buffer, self._longest_line())
        return None if words is None else Typed(words)

    def _take_json(self) -> bytes | None:
        longest = self._longest_line()
        if self.session.authenticated:
            longest += 2 * self._resp.limits.max_value
        return self._buffer.take_line(longest)

    def _longest_line(self) -> int:
        return MAX_LINE if self.session.authenticated else STRANGERS_LINE
