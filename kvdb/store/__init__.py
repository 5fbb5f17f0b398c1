"""The lock-guarded store: what is kept, what it costs, who has to go, and what was told of it.

From the inside out: `entry` (keys, entries, costs), `recency`, `deadlines`, `scans` and
`versions` (what is kept, each for itself), `keyspace` (all of that, and what it costs), `budget`
(who has to go), `feed` (who is told), `steps` (lock and moment), `core` (the one write, the one
removal), `figures`, `listing`, `watching` and `copies` (what is asked of the whole), `store`
(what clients do to keys).

One lock (`Steps._lock`) guards everything in this folder. It is re-entrant, so that `atomic()`
can make one step of several operations. Nothing does I/O, logs or waits while holding it, and
no other lock is taken under it, except for a moment by the two hooks that say so:
`add_listener()` and `on_earlier_deadline`.
"""

from kvdb.store.copies import Dump
from kvdb.store.store import Store

__all__ = ["Dump", "Store"]
