"""The dialects: bytes in, due replies out. No socket, no thread, no clock, and nothing waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

from kvdb.commands.session import Session
from kvdb.commands.waiting import MustWait, TakesLong
from kvdb.errors import NotOurProtocol
from kvdb.persistence import ATTEMPTS, Persistence, Seen
from kvdb.resp.buffer import InputBuffer

BATCH_BYTES: Final = 1024 * 1024
"""Replies that come together before they are sent."""


class Dialect(Protocol):
    """What the server needs of a dialect. One lives as long as its connection."""

    closing: bool
    """Send what is due, then close the connection."""

    more: bool
    """Once what is due has been sent, call receive(b""): more replies follow.

    A dialect stops at about BATCH_BYTES of replies, so that a client that asks for much at once
    cannot make us hold it all.
    """

    takes_long: bool
    """What follows takes long: call receive(b"") where nobody else has to wait for it.

    If the session is `waiting`, on the other hand, not before that is over.
    """

    undecided: Undecided | None
    """What is due instead, once the disk holds what it depends on. Until it is settled, receive()
    must not be called."""

    idle: bool
    """All that has arrived is answered, and nothing else is to be done."""

    @property
    def held_bytes(self) -> int:
        """What has arrived and is not answered yet."""

    def receive(self, data: bytes) -> bytes:
        """Take what has arrived (a part of a request, or fifty); return the replies now due."""

    def end(self) -> None:
        """Let go of everything: the connection has ended, and its memory is wanted back at once."""


class Instead(NamedTuple):
    """What becomes of a reply if what it depends on could not be saved and was undone."""

    refuse: Callable[[str], bytes]
    """Makes the error that replaces it, in the words of its request, from the reason."""
    again: Callable[[], bytes] | None
    """Answers the request anew, if it has changed nothing; None: it cannot be repeated."""
    only_reads: bool
    """All that it can have changed is that a key has expired: that is no reason to refuse it."""


class _Dependent(NamedTuple):
    """A reply that depends on what may not be on disk yet."""

    place: int  # among the replies
    seen: Seen
    instead: Instead | None
    standing: tuple[object, ...]  # of its conversation: see RequestLoop._standing()


class Undecided:
    """Replies that are due once the disk holds what they depend on, or has refused it."""

    def __init__(self, conversation: RequestLoop, persistence: Persistence) -> None:
        self._conversation, self._persistence = conversation, persistence
        self._ticket = persistence.arrive()  # outcomes of all that follows are kept for us
        self._replies: list[bytes] = []
        self._dependents: list[_Dependent] = []
        self._attempts = ATTEMPTS
        self.step = 0
        """Number of the last step of the change feed that they depend on."""

    def add(self, place: int, seen: Seen, instead: Instead | None) -> None:
        """Say what the reply at this place depends on."""
        standing = self._conversation._standing()
        self._dependents.append(_Dependent(place, seen, instead, standing))
        self.step = max(self.step, seen.wrote or seen.last)

    def begin_reply(self) -> int:
        """Return how often something was undone before a reply is made."""
        session = self._conversation.session
        session.wrote = session.saw = 0  # nothing, if it does not get as far as the store
        return self._persistence.undos

    def wait_with(self, replies: list[bytes]) -> None:
        """Keep the replies."""
        self._replies = replies

    @property
    def is_decided(self) -> bool:
        """Whether settle() has something to say."""
        return self._persistence.durable_step >= self.step

    def settle(self) -> bytes | None:
        """Return what may be sent; None if answers were made anew, and these have to wait again.

        What was refused is replaced by an error; what had read it is answered anew, unless the
        conversation has gone on to where the same request means something else.
        """
        persistence, loop = self._persistence, self._conversation
        refused = [each for each in self._dependents if not persistence.outcome(each.seen)]
        self._dependents, self.step = [], 0
        self._attempts -= 1
        for place, seen, instead, standing in refused:
            if instead is None or not self._replies[place]:
                continue
            is_last = place == len(self._replies) - 1  # only that one can be large
            unsent, loop._unsent = (None if is_last else loop._unsent), None
            if (
                instead.again is None
                or (seen.wrote and not instead.only_reads)
                or standing != loop._standing()
                or not self._attempts
            ):
                reason = persistence.last_error or "the disk refused it for a moment"
                self._replies[place] = instead.refuse(reason)
            else:
                session, undos = loop.session, self.begin_reply()
                reply = self._answer_anew(instead.again)
                if not is_last:
                    reply += b"".join(loop._unsent or ())
                self._replies[place] = reply
                self.add(place, Seen(session.wrote, undos, session.saw), instead)
            if not is_last:
                loop._unsent = unsent
        if loop._unsent is not None:
            loop.more, loop.idle = True, False
        if self._dependents:
            return None
        self.leave()
        return b"".join(self._replies)

    def _answer_anew(self, again: Callable[[], bytes]) -> bytes:
        """Return another answer, even if it takes long: it is rare enough for others to wait."""
        loop, session = self._conversation, self._conversation.session
        last, at_leisure = loop._last, session.at_leisure  # the former may be put off still
        session.at_leisure = True
        try:
            return again()
        finally:
            loop._last, session.at_leisure = last, at_leisure

    def leave(self) -> None:
        """Forget it: it is settled, or nobody is left to be answered."""
        if loop := self._conversation:
            self._persistence.leave(self._ticket)
            loop.undecided = None


class RequestLoop:
    """What the dialects have in common: answer every request that is whole.

    A subclass says how a request is answered, and calls `_in_batches()` for a reply that may be
    large. It keeps the request in `_last` until it is answered: whoever may have to answer it
    once more (see `_instead()`) has a reference of his own.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.closing = self.more = self.takes_long = False
        self.idle = True
        self.undecided: Undecided | None = None
        self._buffer = InputBuffer()
        self._unsent: Iterator[bytes] | None = None  # pieces of a large reply
        self._last: Any = None  # the request that was answered last
        self._postponed = False  # `_last` is still to be answered
        self._encodes_slowly = False  # what is in `_unsent`
        self._persistence = session.instance.persistence

    @property
    def held_bytes(self) -> int:
        """See `Dialect.held_bytes`."""
        return len(self._buffer)

    def receive(self, data: bytes) -> bytes:
        """See `Dialect.receive`."""
        if data:
            self._buffer.receive(data)
        persistence = self._persistence
        if persistence is None or not persistence.waits:
            replies = self._answer_batch(None)
            return replies[0] if len(replies) == 1 else b"".join(replies)
        self.session.note_steps()
        undecided = Undecided(self, persistence)
        try:
            undecided.wait_with(self._answer_batch(undecided))
            while undecided.is_decided:
                settled = undecided.settle()
                if settled is not None:
                    return settled
        except BaseException:
            undecided.leave()
            raise
        self.undecided = undecided
        return b""

    def _answer_batch(self, undecided: Undecided | None) -> list[bytes]:
        """Answer what is whole, up to about BATCH_BYTES; tell `undecided` what has to wait."""
        replies: list[bytes] = []
        size = 0
        session, buffer = self.session, self._buffer
        self.more = self.takes_long = False
        while size < BATCH_BYTES:
            if self._unsent is not None:
                reply = next(self._unsent, None)
                if reply is None:
                    self._unsent = None
                    continue
            elif session.closing or self.closing:
                self.closing = True
                break
            elif buffer.head or self._postponed:
                if undecided:
                    undos = undecided.begin_reply()
                try:
                    if self._postponed:
                        self._postponed = False
                        reply = self._answer_last()
                        session.waiting = None
                    else:
                        reply = self._answer_next()
                except TakesLong as reason:
                    self._postponed = self.more = True
                    session.waiting = reason.waiting if isinstance(reason, MustWait) else None
                    self.takes_long = session.waiting is None
                    break
                except NotOurProtocol as error:
                    self._end_without_a_word(error)
                    break
                if reply is None:
                    break
                if undecided:
                    seen = Seen(session.wrote, undos, session.saw)
                    undecided.add(len(replies), seen, self._instead())
                    if self._unsent is not None:  # not a piece of it may leave before that
                        replies.append(reply)
                        break
                if session.penalty:  # who guesses passwords gets one answer at a time
                    replies.append(reply)
                    self.more = True
                    break
            else:
                break
            replies.append(reply)
            size += len(reply)
        if self._unsent is not None:
            self.more = True
            self.takes_long = session.at_leisure or self._encodes_slowly
        elif size >= BATCH_BYTES and not self.closing:
            self.more = True
        if not (self._postponed or (undecided and self._is_incomplete())):
            self._last = None  # it may be large, and the client idle for long
        self.idle = not (buffer.head or self.more or self.closing)
        return replies

    def _end_without_a_word(self, error: NotOurProtocol) -> None:
        """A web page, say, is talking to us: it must not drive the store."""
        log = logging.getLogger(type(self).__module__)
        text = f"client {self.session.address}: {error}; closed"
        self.session.instance.sparse_log.warn(log, f"protocol {error}", text)
        self.closing = True

    def end(self) -> None:
        """See `Dialect.end`."""
        if self.undecided is not None:
            self.undecided.leave()
        self._buffer = InputBuffer()
        self._unsent = self._last = None

    def _answer_next(self) -> bytes | None:
        """Return the reply to the next request, or None until that is whole.

        Raises NotOurProtocol to have the connection closed without a word, and TakesLong if
        _answer_last() is to be called for the request, at leisure.
        """
        raise NotImplementedError

    def _answer_last(self) -> bytes | None:
        """Return the reply to the request in `_last`."""
        raise NotImplementedError

    def _is_incomplete(self) -> bool:
        """Tell whether there is more to come of the request in `_last` before it is answered."""
        return False

    def _standing(self) -> tuple[object, ...]:
        """Return what a request means depends on, beside its words and the store."""
        session = self.session
        return (
            session.user, session.authenticated, session.db, session.version, session.transaction,
            session.writes, session.silent, session.skip_next,
        )  # fmt: skip

    def _in_batches(self, pieces: Iterable[bytes]) -> bytes:
        """Return one reply joined from its pieces or, if it is large, have it sent bit by bit.

        The pieces of a large reply are the stored values themselves, or are made when it is
        their turn: ten thousand times the same value takes no more memory than one.
        """
        rest = iter(pieces)
        first: list[bytes] = []
        size = 0
        for piece in rest:
            first.append(piece)
            size += len(piece)
            if size > BATCH_BYTES:
                self._unsent = chain(first[1:], rest)
                return first[0]
        return b"".join(first)

    def _instead(self) -> Instead | None:
        """Return what becomes of the reply just made if the disk refuses what it depends on.

        None if it does not depend on the store.
        """
        raise NotImplementedError
