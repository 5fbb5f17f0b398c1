"""Who watches all requests go by (MONITOR)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from kvdb.spelling import quoted, without_secrets


class Client(Protocol):
    """Who is told: a session."""

    push: Callable[[bytes], None]
    """Takes what is to be sent, at once; the connection ends if too much of it waits."""


class Monitors:
    """The clients that watch. `_lock` guards the set; whoever tells them takes what it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: tuple[Client, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._clients)

    def __contains__(self, client: object) -> bool:
        return client in self._clients

    def add(self, client: Client) -> None:
        """Have a client told of every request from now on."""
        with self._lock:
            if client not in self._clients:
                self._clients += (client,)

    def remove(self, client: Client) -> None:
        """Tell this client no more."""
        with self._lock:
            self._clients = tuple(each for each in self._clients if each is not client)

    def tell(self, at: float, db: int, address: str, words: Sequence[bytes]) -> None:
        """Show a request to all of them; it was carried out at `at`, in Unix seconds."""
        shown = b" ".join(map(quoted, without_secrets(words)))
        line = b"+%.6f [%d %b] %b\r\n" % (at, db, address.encode("utf-8", "replace"), shown)
        for client in self._clients:
            client.push(line)
