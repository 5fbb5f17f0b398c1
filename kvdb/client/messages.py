"""What a subscription is about, and what came of it: the same for threads and for asyncio."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Generic, NamedTuple

from kvdb.client.commands import Name, decode_name, encode_name
from kvdb.client.errors import Error, ServerError
from kvdb.client.serializers import Serializer, V

FIRST_PAUSE: Final = 0.02  # seconds between two tries to connect
LONGEST_PAUSE: Final = 2.0

_FINAL_REFUSALS: Final = ("NOAUTH", "WRONGPASS", "NOPERM")
"""Codes of refusals that another try does not change. (LOADING and too many clients pass.)"""


class Message(NamedTuple, Generic[V]):
    """What was published."""

    channel: Name
    value: V
    pattern: Name | None = None
    """The pattern that the channel matches; None if it was subscribed to by its name."""
    after_gap: bool = False
    """True for the first message after a broken connection: some before it may be missing."""


class Received(NamedTuple):
    """A message as it came."""

    channel: bytes
    data: bytes
    pattern: bytes | None
    after_gap: bool


class Topic(NamedTuple):
    """What can be subscribed to."""

    word: bytes  # SUBSCRIBE or PSUBSCRIBE
    name: bytes


def requests_for(topics: Iterable[Topic], prefix: bytes = b"") -> list[list[bytes]]:
    """Return a request for each; `prefix`: UN to unsubscribe."""
    return [[topic.word.replace(b"SUB", prefix + b"SUB"), topic.name] for topic in topics]


def is_final(error: Error) -> bool:
    """Tell whether another try to connect would meet the same."""
    return isinstance(error, ServerError) and error.code in _FINAL_REFUSALS


class Inbox(Generic[V]):
    """The topics that are wanted, those that the server has confirmed, and the messages.

    Its owner says by which lock it is guarded, if by any.
    """

    def __init__(self, serializer: Serializer[V], prefix: bytes) -> None:
        """`prefix` of a namespace: channels begin with it, messages are returned without it."""
        self._serializer, self._prefix = serializer, prefix
        self._pattern_prefix = re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix)  # it stands for itself
        self.wanted: set[Topic] = set()
        self.confirmed: set[Topic] = set()  # on the present connection
        self.messages: deque[Received] = deque()
        self.asked: deque[Topic | None] = deque()
        """What has been asked for on the present connection and not been answered, in its order."""
        self.refused: dict[Topic, ServerError] = {}
        self.gap = False  # the next message is the first after a break
        self._undecoded_gap = False  # that one could not be read: the one behind it is

    def topics(self, channels: Iterable[Name], patterns: Iterable[Name]) -> set[Topic]:
        """Return what these names stand for."""
        topics = {Topic(b"SUBSCRIBE", self._prefix + encode_name(name)) for name in channels}
        return topics | {
            Topic(b"PSUBSCRIBE", self._pattern_prefix + encode_name(name)) for name in patterns
        }

    def ask(self, topics: Iterable[Topic], prefix: bytes = b"") -> list[list[bytes]]:
        """Return requests for these topics that are about to be sent; `prefix`: UN to unsubscribe."""
        topics = list(topics)
        for topic in topics:
            self.refused.pop(topic, None)
        self.asked += topics
        return requests_for(topics, prefix)

    def ask_for_a_sign(self) -> list[list[bytes]]:
        """Return a request that is about to be sent, to see whether the server is there."""
        self.asked.append(None)
        return [[b"PING"]]

    def lose(self) -> None:
        """There is no connection any more: nothing is confirmed, and no answer will come."""
        self.confirmed.clear()
        self.asked.clear()

    def take(self, reply: Any) -> None:
        """Take in one thing that the server has sent."""
        is_message = isinstance(reply, list) and reply[:1] in ([b"message"], [b"pmessage"])
        topic = self.asked.popleft() if self.asked and not is_message else None
        match reply:
            case ServerError():
                if topic is not None:  # wanted no more: it would be refused for ever
                    self.wanted.discard(topic)
                    self.refused[topic] = reply
            case [b"message", channel, data]:
                self.messages.append(Received(channel, data, None, self.gap))
                self.gap = False
            case [b"pmessage", pattern, channel, data]:
                self.messages.append(Received(channel, data, pattern, self.gap))
                self.gap = False
            case [b"subscribe" | b"psubscribe" as word, name, _]:
                self.confirmed.add(Topic(word.upper(), name))
            case [b"unsubscribe" | b"punsubscribe" as word, name, _]:
                self.confirmed.discard(Topic(word.upper().replace(b"UN", b""), name))

    def refusal_of(self, topics: Iterable[Topic]) -> ServerError | None:
        """Return why one of these was refused, once; None if none was."""
        return next(filter(None, [self.refused.pop(topic, None) for topic in topics]), None)

    def message(self, received: Received) -> Message[V]:
        """Return what was published. Raises SerializationError."""
        self._undecoded_gap |= received.after_gap
        value = self._serializer.decode(received.data)
        after_gap, self._undecoded_gap = self._undecoded_gap, False
        channel = decode_name(received.channel[len(self._prefix) :])
        pattern = received.pattern and decode_name(received.pattern[len(self._pattern_prefix) :])
        return Message(channel, value, pattern, after_gap)
