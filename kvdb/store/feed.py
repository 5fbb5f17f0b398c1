"""The change feed: what was done to the store, told in the order in which it was done."""

from __future__ import annotations

from kvdb.store.entry import Change, Flush, Listener


class ChangeFeed:
    """Facts of the step under way, and who is told of them. The store's lock guards it."""

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()
        self.step = 0
        """Number of the last step that was told. Without a listener, nothing is numbered."""
        self.facts: list[Change | Flush] = []
        """Of the step under way."""

    def add(self, listener: Listener) -> None:
        """Have this listener told of every step from now on."""
        self.listeners += (listener,)

    def remove(self, listener: Listener) -> None:
        """Tell this listener no more."""
        self.listeners = tuple(each for each in self.listeners if each != listener)

    def publish(self) -> None:
        """End the step: number it, and hand its facts to the listeners."""
        facts, self.facts = self.facts, []
        self.step += 1
        for listener in self.listeners:
            listener(self.step, facts)
