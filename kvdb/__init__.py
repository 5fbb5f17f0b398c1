"""kvdb: a key-value server in Python that needs nothing but the standard library.

`python -m kvdb` serves; `kvdb.Client` talks to it.
"""

from kvdb.client import (
    BYTES,
    JSON,
    PICKLE,
    TEXT,
    Client,
    Disconnected,
    Error,
    Pipeline,
    SerializationError,
    Serializer,
    ServerError,
    TimedOut,
)

__version__ = "0.1.0"

__all__ = [
    "BYTES",
    "JSON",
    "PICKLE",
    "TEXT",
    "Client",
    "Disconnected",
    "Error",
    "Pipeline",
    "SerializationError",
    "Serializer",
    "ServerError",
    "TimedOut",
]
