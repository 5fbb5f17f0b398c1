"""What several test modules need: a clock that stands still, a conversation without a socket."""

from __future__ import annotations

from dataclasses import dataclass

import kvdb.commands  # noqa: F401  (fills the command table)
from kvdb.commands.session import Instance, Session
from kvdb.config import Config
from kvdb.protocols.main_port import MainPort
from kvdb.replies import Reply
from kvdb.store import Store


@dataclass
class ManualClock:
    """A clock that stands still until a test moves it."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Conversation:
    """A client of a server without a socket: commands in, replies out.

    All conversations over one `instance` share its store.
    """

    def __init__(self, instance: Instance | None = None, **config: object) -> None:
        self.clock = ManualClock()
        if instance is None:
            settings = Config(**config)  # type: ignore[arg-type]
            instance = Instance(Store(settings.max_bytes, clock=self.clock), settings)
        elif isinstance(instance.store.clock, ManualClock):
            self.clock = instance.store.clock
        self.instance = instance
        self.store = instance.store
        self.session = Session(instance, "127.0.0.1:50000", "127.0.0.1:4242")
        assert instance.admit(self.session)
        self.dialect = MainPort(self.session)

    def __call__(self, *request: bytes | str | int) -> Reply:
        """Carry out one request; return its reply as a Python value."""
        words = [word if isinstance(word, bytes) else str(word).encode() for word in request]
        return self.session.execute(words)

    def error(self, *request: bytes | str | int) -> str:
        """Carry out a request that is refused; return the error's text."""
        reply = self(*request)
        return reply.text if hasattr(reply, "text") else f"no error but {reply!r}"

    def bytes(self, data: bytes | str) -> bytes:
        """Send bytes on the main port; return all the bytes that come back."""
        replies = self.dialect.receive(data if isinstance(data, bytes) else data.encode())
        while self.dialect.more:
            replies += self.dialect.receive(b"")
        return replies

    def another(self) -> Conversation:
        """Return a second client of the same server."""
        return Conversation(self.instance)
