"""kvdb: a key-value server in Python that needs nothing but the standard library.

`python -m kvdb` serves; `kvdb.Client` and `kvdb.AsyncClient` talk to it; `kvdb.running()` is a server
for tests.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "BYTES",
    "JSON",
    "TEXT",
    "AsyncClient",
    "AsyncPipeline",
    "AsyncSubscription",
    "AsyncTransaction",
    "Client",
    "Conflict",
    "Disconnected",
    "Error",
    "Later",
    "LockLost",
    "Message",
    "Pipeline",
    "SerializationError",
    "Serializer",
    "ServerError",
    "Subscription",
    "Throttled",
    "TimedOut",
    "Transaction",
    "running",
]

if TYPE_CHECKING:
    from kvdb.client import (
        BYTES,
        JSON,
        TEXT,
        AsyncClient,
        AsyncPipeline,
        AsyncSubscription,
        AsyncTransaction,
        Client,
        Conflict,
        Disconnected,
        Error,
        Later,
        LockLost,
        Message,
        Pipeline,
        SerializationError,
        Serializer,
        ServerError,
        Subscription,
        Throttled,
        TimedOut,
        Transaction,
    )
    from kvdb.testing import running
else:

    def __getattr__(name: str) -> object:
        # What is imported is imported when it is first asked for: a server starts without it.
        if name == "running":
            from kvdb.testing import running

            return running
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import kvdb.client

        return getattr(kvdb.client, name)

    def __dir__() -> "list[str]":  # quoted: older Pythons, which are told so, have to read it
        return [*globals(), *__all__]
