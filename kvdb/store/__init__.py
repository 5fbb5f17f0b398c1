"""The lock-guarded store: what is kept, what it costs, who has to go, and what was told of it."""

from kvdb.store.store import Dump, Store

__all__ = ["Dump", "Store"]
