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
from kvdb.protocols import BATCH_BYTES, RequestLoop
from kvdb.protocols.inline import next_inline_request
from kvdb.protocols.json_lines import answer, error_line
from kvdb.resp import (
    MAX_LINE,
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
            if not (rest or self._unsent or self.session.closing):
                return replies
        else:
            replies, rest = b"", data
            self._together = True
        replies += super().receive(rest)
        self._idle = not (self._answer or self._unsent or self.more or len(self._buffer))
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
        if self._unsent:
            self.more, self._idle = True, False
        return reply

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
            if size >= BATCH_BYTES or self._unsent or session.closing or not session.authenticated:
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

    def _unsaved(self) -> Callable[[str], bytes]:
        make = error_line if self._in_json else encode_error
        return lambda reason: make(NOT_SAVED + reason)

    def _answer_for(self, first: int) -> Callable[[], bytes | None]:
        self._in_json = first == ord("{")
        match first:
            case 0x2A:  # *
                return self._answer_resp
            case 0x7B:  # {
                return self._answer_json
            case 0x16:  # what TLS begins with
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
        return self._answer_request(request)

    def _answer_inline(self) -> bytes | None:
        return self._answer_request(next_inline_request(self._buffer))

    def _answer_request(self, request: list[bytes] | None) -> bytes | None:
        if not request:
            return None if request is None else b""  # an empty request: as if it had not come
        reply = self.session.execute(request)
        if type(reply) is list:
            return self._in_batches(encode_pieces(reply, self.session.version))
        return encode_reply(reply, self.session.version)

    def _answer_json(self) -> bytes | None:
        try:
            line = self._buffer.take_line(2 * self._resp.limits.max_value + MAX_LINE)
        except LineTooLong:
            self.session.closing = True
            return error_line("the line is too long")
        return None if line is None else answer(self.session, line)
