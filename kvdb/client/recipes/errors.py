"""What recipes raise beside the errors of the client."""

from __future__ import annotations

from kvdb.client.errors import Error


class LockLost(Error):
    """A lock, or a place of a semaphore, was no longer ours: its ttl had passed, or it was deleted.

    Somebody else may have held it meanwhile.
    """


class Throttled(Error):
    """A function was not called: it has been called as often as its limit allows."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text, retry_after)
        self.retry_after = retry_after
        """Seconds until a call is allowed again, if nobody else comes first."""

    def __str__(self) -> str:
        return str(self.args[0])
