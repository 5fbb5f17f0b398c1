"""kvdb: a key-value server in Python that needs nothing but the standard library.

`python -m kvdb` serves; `kvdb.Client` talks to it.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "BYTES",
    "JSON",
    "TEXT",
    "Client",
    "Conflict",
    "Disconnected",
    "Error",
    "Later",
    "Pipeline",
    "SerializationError",
    "Serializer",
    "ServerError",
    "TimedOut",
    "Transaction",
]

if TYPE_CHECKING:
    from kvdb.client import (
        BYTES,
        JSON,
        TEXT,
        Client,
        Conflict,
        Disconnected,
        Error,
        Later,
        Pipeline,
        SerializationError,
        Serializer,
        ServerError,
        TimedOut,
        Transaction,
    )
else:

    def __getattr__(name: str) -> object:
        # The client is imported when it is first asked for: a server starts without it.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import kvdb.client

        return getattr(kvdb.client, name)

    def __dir__() -> "list[str]":  # quoted: older Pythons, which are told so, have to read it
        return [*globals(), *__all__]
