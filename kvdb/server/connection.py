"""One client's connection: what comes in, what goes out, and what it waits for in between."""

from __future__ import annotations

import _thread
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvdb.accounts import SMALL
from kvdb.protocols import Dialect
from kvdb.server.loop import READ, WRITE, EventLoop
from kvdb.server.outgoing import Outgoing
from kvdb.server.waits import Waits

if TYPE_CHECKING:
    import threading

    from kvdb.commands.session import Session
    from kvdb.server.transport import Transport

log = logging.getLogger(__name__)

_RECEIVE_BYTES: Final = 64 * 1024
_MORE_TURNS: Final = 3
"""Further reads from a busy client in one round, before the others have their turn."""

_CHECK_MEMORY_ABOVE: Final = 16 * 1024
"""Above this many bytes in one read, check the memory of the process first."""


class Connection(Waits):
    """Moves bytes between a socket and a dialect. All but `push()` and `end()` belong to the
    event loop's thread; a request that takes long is answered on a thread of its own, and until
    that has come back nothing else is asked of the dialect.

    While something waits for the client to read, nothing more is read of that client.
    """

    __slots__ = (
        "__weakref__", "_dropped", "_ended", "_events", "_on_end", "_recv", "_transport",
    )  # fmt: skip

    def __init__(
        self,
        connection: socket.socket,
        transport: Transport,
        loop: EventLoop,
        session: Session,
        dialect: Dialect,
        lock: threading.Lock,
        on_end: Callable[[Connection], None],
    ) -> None:
        """`on_end` is called once, when all is over."""
        super().__init__(connection, loop, session, dialect)
        session.at_leisure = False  # the loop has others to serve
        self._transport = transport
        self._recv = transport.recv
        self._out = session.outgoing = Outgoing(transport, session, lock)
        self._on_end = on_end
        self._events = 0  # that the loop waits for
        self._ended = False  # nothing more comes in
        self._dropped = False

    # --- called by any thread ------------------------------------------------------------

    def push(self, data: bytes) -> None:
        """Send this to the client when it is its turn: a message that nobody has asked for."""
        if self._out.push(data):
            self._loop.call(self._take_pushed)

    def recall(self) -> bytes:
        """Take back what was pushed and not yet sent; called by this session's own dialect."""
        return self._out.recall()

    def end(self) -> None:
        """End the connection at once."""
        self._loop.call(self.drop)

    def finish(self) -> None:
        """End the connection once what has come in is answered, and the answers are sent."""
        self._loop.call(lambda: self._take_step(self._stop_reading))

    # --- called by the loop --------------------------------------------------------------

    def enter(self) -> None:
        """Be served from now on."""
        self._take_step(lambda: self._want(READ))

    def is_ready(self, events: int, more_turns: int = _MORE_TURNS) -> None:
        """See `Served.is_ready`."""
        if self._dropped:
            return
        if events & WRITE:
            self._out.flush()
            self._go_on()
        if events & READ and self._events & READ:
            try:
                data = self._recv(_RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                if self._out.has_unsent:  # part of the TLS handshake
                    self._go_on()
                return
            if not data:
                self._ended = True
                return self._go_on()
            session = self.session
            session.last_active = self._loop.now
            session.received += len(data)
            if len(data) > _CHECK_MEMORY_ABOVE and self._instance.governor:
                self._instance.governor.keep_pace(len(data))
            self._answer(data)
            if len(data) == _RECEIVE_BYTES and more_turns:  # there is more, in all likelihood
                self.is_ready(READ, more_turns - 1)

    def look(self) -> None:
        """See `Served.look`."""
        if self._dropped or self._busy:
            return
        dialect = self._dialect
        undecided = dialect.undecided
        if undecided is not None:
            if undecided.is_decided and (replies := undecided.settle()) is not None:
                self._deliver(replies)
        elif self.session.waiting is not None and not self.session.waiting.is_over:
            if self._is_gone():
                return self.drop()
        elif dialect.more and not dialect.takes_long and not self._must_send():
            self._answer(b"")  # the others had their turn
        self._go_on()

    def drop(self) -> None:
        """See `Served.drop`."""
        if self._dropped:
            return
        if self._loop.set_aside is self:  # in the middle of a request: it ends after that
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            return
        self._dropped = True
        self._want(0)
        if self._busy:  # the thread still uses the dialect
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        else:
            self._close()

    def _close(self) -> None:
        log.debug("client %s: connection ended", self.session.address)
        self._transport.close()
        self._dialect.end()
        self._held_back = None
        self._out.clear()
        self._instance.dismiss(self.session)
        self._on_end(self)

    # --- what comes in -------------------------------------------------------------------

    def _answer(self, data: bytes) -> None:
        """Hand what has arrived to the dialect, and send what is due."""
        dialect, session = self._dialect, self.session
        step = session.store.step if self._loop.is_congested else None
        replies = dialect.receive(data)
        if session.penalty:
            self._deliver(replies)
        elif replies:
            self._out.transmit(replies)
        if (
            self._out.size
            or self._transport.has_unsent
            or not dialect.idle
            or session.held
            or dialect.undecided is not None
            or self._held_back
            or len(replies) > SMALL
            or session.queues
            or step is not None
        ):
            self._report(len(replies))
            if step is not None and session.store.step != step:
                self._waits_until = self._loop.now + self._instance.longest_wait()
            if self._out.size and self._out.is_too_much(self._loop.now):
                return self._end_who_does_not_read()
            self._go_on()

    def _deliver(self, replies: bytes) -> None:
        """Send replies; later, if they are to be held back."""
        if self.session.penalty and self._dialect.undecided is None:
            self._held_back = self._loop.now + self.session.take_penalty(), replies
        elif replies:
            self._out.transmit(replies)

    def _go_on(self) -> None:
        """Find out what comes next: wait, send, answer, end or receive."""
        dialect = self._dialect
        if self._dropped:
            return
        if not self._is_in_the_middle():
            self._out.send_later()
        events = WRITE if self._out.has_unsent else 0
        if self._busy:
            pass
        elif dialect.undecided is not None:
            self._loop.watch(self)
        elif self._held_back:
            due, replies = self._held_back
            if self._loop.now < due and not self._ended:
                self._loop.watch(self)
            else:
                self._held_back = None
                self._out.transmit(replies)
                return self._go_on()
        elif events:
            pass  # nothing more before the client has read that
        elif dialect.more:
            if dialect.takes_long:
                self._start_work()
            else:  # the others come in between
                self._loop.watch(self, at_once=self.session.waiting is None)
        elif dialect.closing or self._ended:
            return self.drop()
        elif self._must_wait():
            self._loop.watch(self)
        else:
            events = READ
        self._want(events)

    def _want(self, events: int) -> None:
        if events == self._events:
            return
        if not self._events:
            self._loop.register(self._socket, events, self)
        elif not events:
            self._loop.unregister(self._socket)
        else:
            self._loop.modify(self._socket, events, self)
        self._events = events

    def _stop_reading(self) -> None:
        if self._events & READ:
            self.is_ready(READ)  # what has arrived already
        self._ended = True
        self._go_on()

    def _take_step(self, step: Callable[[], None]) -> None:
        """Do something that the loop was asked to call; a failure ends the connection."""
        if self._dropped:
            return
        try:
            step()
        except OSError:  # the client is gone
            self.drop()
        except Exception:
            log.exception("client %s: internal error, connection ended", self.session.address)
            self.drop()

    # --- what takes long -----------------------------------------------------------------

    def _start_work(self) -> None:
        self._busy = True
        try:
            _thread.start_new_thread(self._work, ())
        except (RuntimeError, MemoryError):  # then everybody has to wait for it
            self._work()

    def _work(self) -> None:
        """Answer the request that takes long; on a thread of its own."""
        self.session.at_leisure = True
        self.session.be_timed(True)
        replies = None
        try:
            replies = self._dialect.receive(b"")
        except Exception:
            log.exception("client %s: internal error, connection ended", self.session.address)
        self.session.at_leisure = False
        self.session.be_timed(False)
        self._loop.call(lambda: self._end_work(replies))

    def _end_work(self, replies: bytes | None) -> None:
        """Have the loop take over again; None: there was an error."""
        self._busy = False
        if self._dropped:
            self._close()
        elif replies is None:
            self.drop()
        else:
            self._take_step(lambda: self._take_replies(replies))

    def _take_replies(self, replies: bytes) -> None:
        self._deliver(replies)
        self._report(len(replies))
        self._go_on()

    # --- what others push ----------------------------------------------------------------

    def _take_pushed(self) -> None:
        """Send it in between two replies, unless too much waits already."""
        if self._dropped:
            self._out.clear()
        else:
            self._take_step(self._send_pushed)

    def _send_pushed(self) -> None:
        out, wait = self._out, self._is_in_the_middle()
        out.take_pushed(wait)
        if not (wait or out.has_unsent):
            return  # as nearly always
        if out.is_too_much(self._loop.now):
            self._end_who_does_not_read()
        elif out.has_unsent:
            if not self._busy:
                self._report(out.size)
            self._go_on()

    def _end_who_does_not_read(self) -> None:
        log.warning(
            "client %s: ended, because it does not read: %d bytes wait for it "
            "(client-output-buffer-limit)",
            self.session.address, self._out.size,
        )  # fmt: skip
        self._instance.ended_by_output_limit += 1
        self.drop()
