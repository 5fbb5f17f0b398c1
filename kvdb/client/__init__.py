"""The bundled client. It shares nothing with the server but the RESP codec."""

from typing import TYPE_CHECKING

from kvdb.client.client import Client
from kvdb.client.command import Later
from kvdb.client.errors import (
    Conflict,
    Disconnected,
    Error,
    SerializationError,
    ServerError,
    TimedOut,
)
from kvdb.client.messages import Message
from kvdb.client.pipeline import Pipeline
from kvdb.client.recipes.errors import LockLost, Throttled
from kvdb.client.serializers import BYTES, JSON, TEXT, Serializer
from kvdb.client.subscription import Subscription
from kvdb.client.transactions import Transaction

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
]

if TYPE_CHECKING:
    from kvdb.client.async_client import AsyncClient
    from kvdb.client.async_pipeline import AsyncPipeline, AsyncTransaction
    from kvdb.client.async_subscription import AsyncSubscription
else:

    def __getattr__(name: str) -> object:
        # Only who uses them imports asyncio: that takes as long as everything else of the client.
        if name not in ("AsyncClient", "AsyncPipeline", "AsyncSubscription", "AsyncTransaction"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from kvdb.client import async_client

        globals()[name] = value = getattr(async_client, name)
        return value
