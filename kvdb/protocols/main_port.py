"""The main port. The first byte of each request tells its dialect, so all of them mix freely.

`*` begins a RESP array, `{` a JSON line, anything else an inline command.
"""

from __future__ import annotations

from collections.abc import Callable

from kvdb.buffer import LineTooLong
from kvdb.commands.session import Session
from kvdb.commands.table import TABLE
from kvdb.errors import NOT_SAVED, CommandError, NotOurProtocol, ProtocolError
from kvdb.pipelines import (
    LONGEST_PLAIN,
    SHORTEST_RUN,
    find_run,
    join_plain,
    next_request,
    split_plain,
)
from kvdb.protocols import BATCH_BYTES, Instead, RequestLoop
from kvdb.protocols.inline import next_inline_request
from kvdb.protocols.json_lines import answer, error_line
from kvdb.resp import (
    MAX_LINE,
    STRANGERS_LINE,
    RequestLimits,
    RequestParser,
    encode_each,
    encode_error,
    encode_pieces,
    encode_reply,
)


class MainPort(RequestLoop):
    """One client's conversation on the main port."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._resp = RequestParser(self._buffer, RequestLimits())
        self._answer: Callable[[], bytes | None] | None = None  # of a request that is under way
        self._in_json = False
        self._limits_for: tuple[bool, int] | None = None  # what the limits were chosen for
        self._idle = True  # nothing that has arrived is left, and nothing is to be sent
        self._together = False  # whether plain requests are to be looked for in what is left

    def receive(self, data: bytes) -> bytes:
        """See `Dialect.receive`."""
        if self._idle:
            replies, rest = self._answer_together(data)
            if not (rest or self._unsent is not None or self.session.closing):
                return replies
        else:
            replies, rest = b"", data
            self._together = True
        replies += super().receive(rest)
        self._idle = not (self._answer or self.more or len(self._buffer))
        return replies

    def answer_quickly(self, data: bytes) -> bytes | None:
        """See `Dialect.answer_quickly`: one command on keys, from a client in no special state."""
        session = self.session
        if not (self._idle and session.ordinary) or session.closing:
            return None
        parts = data.split(b"\r\n")
        request = next_request(parts, 0)
        if request is None or len(parts) != 2 * len(request) + 2 or parts[-1]:
            return None
        row = TABLE.get(request[0])
        if row is None or not row.touches or not self._may_answer_together():
            return None
        reply = self._answer_request(request)
        if self._unsent is not None:
            self.more, self._idle = True, False
        return reply

    def end(self) -> None:
        """See `Dialect.end`. A request under way refers to us."""
        super().end()
        self._answer = None
        self._resp = RequestParser(self._buffer, RequestLimits())

    def _answer_together(self, data: bytes) -> tuple[bytes, bytes]:
        """Answer the plain requests at the start of `data`; return replies and what is left.

        Once for what a client sends at a time: looking for them again behind each other
        request would take too long where they alternate.
        """
        self._together = False
        session = self.session
        if data[:1] != b"*" or session.closing or not self._may_answer_together():
            return b"", data
        parts = split_plain(data)
        if len(parts) > SHORTEST_RUN and (found := find_run(parts)):
            run, end = found
            replies = session.execute_run(run)
            if replies is not None:
                pieces = encode_each(replies, session.version)
                return self._in_batches(pieces), join_plain(parts[end:])
        answered, size, start = [], 0, 0
        while start < len(parts) - 1 and (request := next_request(parts, start)):
            start += 2 * len(request) + 1
            reply = self._answer_request(request) or b""
            answered.append(reply)
            size += len(reply)
            unsent = self._unsent is not None
            if (
                size >= BATCH_BYTES
                or unsent
                or session.penalty
                or session.closing
                or not session.authenticated
            ):
                break
        return b"".join(answered), join_plain(parts[start:])

    def _may_answer_together(self) -> bool:
        """Tell whether nothing is asked of single requests that only the plain loop looks at."""
        return (
            self.session.authenticated
            and not self._must_wait()
            and self.session.instance.config.max_value_bytes >= LONGEST_PLAIN
        )

    def _answer_next(self) -> bytes | None:
        try:
            if self._answer is None:
                first = self._buffer.first_byte()
                if first is None:
                    return None
                if self._together:
                    replies, rest = self._answer_together(self._buffer.take_all())
                    self._buffer.receive(rest)
                    return replies
                self._choose_limits()
                self._answer = self._answer_for(first)
            reply = self._answer()
            if reply is not None:
                self._answer = None
        except NotOurProtocol:
            raise
        except ProtocolError as error:
            self.closing = True
            reply = self.session.refuse(CommandError(f"ERR Protocol error: {error}"))
            return encode_reply(reply)
        self.closing = self.session.closing
        return reply

    def _instead(self) -> Instead | None:
        session, last = self.session, self._last
        row = TABLE.get(session.last_command.upper().encode())
        ends = session.last_command in ("exec", "commit")  # there is nothing to be repeated
        if session.transaction is not None or not (ends or (row and row.ordinary)):
            return None  # queued, or nothing to do with keys
        make = error_line if self._in_json else encode_error
        answer = self._answer_json_line if self._in_json else self._answer_request
        return Instead(
            lambda reason: make(NOT_SAVED + reason),
            None if ends else lambda: answer(last) or b"",
            only_reads=row is not None and row.reads,
        )

    def _answer_for(self, first: int) -> Callable[[], bytes | None]:
        self._in_json = first == ord("{")
        match first:
            case 0x2A:  # *
                return self._answer_resp
            case 0x7B:  # {
                return self._answer_json
            case 0x16:  # TLS_HANDSHAKE
                raise NotOurProtocol("a TLS handshake on the main port")
            case _:
                return self._answer_inline

    def _choose_limits(self) -> None:
        """Hold strangers to narrow limits, as Redis does, and others to the configured ones."""
        config = self.session.instance.config
        max_value = config.max_value_bytes
        wanted = self.session.authenticated, max_value
        if wanted != self._limits_for:
            self._limits_for = wanted
            self._resp.limits = (
                RequestLimits(max_value=max_value, max_request=config.max_request_bytes)
                if self.session.authenticated
                else RequestLimits.before_authentication()
            )

    def _answer_resp(self) -> bytes | None:
        try:
            request = self._resp.next_request()
        except CommandError as error:
            return encode_reply(self.session.refuse(error), self.session.version)
        self._last = request
        return self._answer_request(request)

    def _answer_inline(self) -> bytes | None:
        self._last = request = next_inline_request(self._buffer, self._longest_line())
        return self._answer_request(request)

    def _answer_request(self, request: list[bytes] | None) -> bytes | None:
        if not request:
            return None if request is None else b""  # an empty request: as if it had not come
        reply = self.session.execute(request)
        if type(reply) is list:
            return self._in_batches(encode_pieces(reply, self.session.version))
        return encode_reply(reply, self.session.version)

    def _longest_line(self) -> int:
        return MAX_LINE if self.session.authenticated else STRANGERS_LINE

    def _answer_json(self) -> bytes | None:
        try:
            longest = self._longest_line()
            if self.session.authenticated:
                longest += 2 * self._resp.limits.max_value
            line = self._buffer.take_line(longest)
        except LineTooLong:
            self.session.closing = True
            return error_line("the line is too long")
        self._last = line
        return None if line is None else self._answer_json_line(line)

    def _answer_json_line(self, line: bytes) -> bytes:
        return self._in_batches(answer(self.session, line))
