"""Publish/subscribe."""

from __future__ import annotations

from typing import Final

from kvdb.commands.session import Session
from kvdb.commands.table import NONE, command, container
from kvdb.errors import CommandError
from kvdb.glob import compile_glob
from kvdb.pubsub import Kind
from kvdb.replies import Pushes, Reply

_MANY: Final = 1_000
"""Channels, or patterns to be compared with one, that take about a millisecond."""


def _subscribe(session: Session, kind: Kind, names: tuple[bytes, ...]) -> Reply:
    return Pushes(session.instance.hub.subscribe(session, kind, names, session.form))


def _unsubscribe(session: Session, kind: Kind, names: tuple[bytes, ...]) -> Reply:
    confirmations: list[Reply] = list(session.instance.hub.unsubscribe(session, kind, names))
    # What was published before comes before the confirmation. (In EXEC's reply, which is an
    # array in RESP2, it would be taken for the reply to some command.)
    if not session.in_exec and (messages := session.recall()):
        confirmations.insert(0, messages)
    return Pushes(confirmations)


@command(
    "SUBSCRIBE",
    "channel [channel ...]",
    NONE,
    "Get the messages that are published on these channels.",
    group="pubsub",
)
def subscribe(session: Session, *channels: bytes) -> Reply:
    return _subscribe(session, Kind.CHANNEL, channels)


@command(
    "UNSUBSCRIBE",
    "[channel ...]",
    NONE,
    "Get no more messages of these channels, or of all.",
    group="pubsub",
)
def unsubscribe(session: Session, *channels: bytes) -> Reply:
    return _unsubscribe(session, Kind.CHANNEL, channels)


@command(
    "PSUBSCRIBE",
    "pattern [pattern ...]",
    NONE,
    "Get the messages of all channels that match these glob patterns.",
    group="pubsub",
)
def psubscribe(session: Session, *patterns: bytes) -> Reply:
    return _subscribe(session, Kind.PATTERN, patterns)


@command(
    "PUNSUBSCRIBE",
    "[pattern ...]",
    NONE,
    "Take these patterns back, or all.",
    group="pubsub",
)
def punsubscribe(session: Session, *patterns: bytes) -> Reply:
    return _unsubscribe(session, Kind.PATTERN, patterns)


@command(
    "SSUBSCRIBE",
    "shardchannel [shardchannel ...]",
    NONE,
    "Get the messages of these shard channels; here all shards are one.",
    group="pubsub",
)
def ssubscribe(session: Session, *channels: bytes) -> Reply:
    if session.in_exec:
        raise CommandError("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client")
    return _subscribe(session, Kind.SHARD, channels)


@command(
    "SUNSUBSCRIBE",
    "[shardchannel ...]",
    NONE,
    "Get no more messages of these shard channels, or of all.",
    group="pubsub",
)
def sunsubscribe(session: Session, *channels: bytes) -> Reply:
    return _unsubscribe(session, Kind.SHARD, channels)


@command(
    "PUBLISH",
    "channel message",
    NONE,
    "Send a message to a channel; return how many get it.",
    group="pubsub",
)
def publish(session: Session, channel: bytes, message: bytes) -> Reply:
    session.take_leisure(session.instance.hub.count(Kind.PATTERN) > _MANY)
    return session.instance.hub.publish(channel, message)


@command(
    "SPUBLISH",
    "shardchannel message",
    NONE,
    "Send a message to a shard channel; return how many get it.",
    group="pubsub",
)
def spublish(session: Session, channel: bytes, message: bytes) -> Reply:
    return session.instance.hub.publish_to_shard(channel, message)


# --- PUBSUB -------------------------------------------------------------------------------

container("PUBSUB", "Look who listens to what.", group="pubsub")


def _names(session: Session, kind: Kind, name: str, patterns: tuple[bytes, ...]) -> Reply:
    if len(patterns) > 1:
        raise CommandError(
            f"ERR unknown subcommand or wrong number of arguments for '{name}'. Try PUBSUB HELP."
        )
    session.take_leisure(session.instance.hub.count(kind) > _MANY)
    matches = compile_glob(patterns[0] if patterns else b"*")
    return [each for each in session.instance.hub.names(kind) if matches(each)]


def _counts(session: Session, kind: Kind, names: tuple[bytes, ...]) -> Reply:
    hub = session.instance.hub
    return [each for name in names for each in (name, hub.count_subscribers(kind, name))]


@command(
    "PUBSUB CHANNELS",
    "[pattern]",
    NONE,
    "List the channels that anybody is subscribed to by name.",
    group="pubsub",
    open_ended=True,
)
def pubsub_channels(session: Session, *patterns: bytes) -> Reply:
    return _names(session, Kind.CHANNEL, "CHANNELS", patterns)


@command(
    "PUBSUB NUMSUB",
    "[channel ...]",
    NONE,
    "Count who is subscribed to each of these channels by name.",
    group="pubsub",
)
def pubsub_numsub(session: Session, *channels: bytes) -> Reply:
    return _counts(session, Kind.CHANNEL, channels)


@command("PUBSUB NUMPAT", "", NONE, "Count the patterns that are subscribed to.", group="pubsub")
def pubsub_numpat(session: Session) -> Reply:
    return session.instance.hub.count(Kind.PATTERN)


@command(
    "PUBSUB SHARDCHANNELS",
    "[pattern]",
    NONE,
    "List the shard channels that anybody is subscribed to.",
    group="pubsub",
    open_ended=True,
)
def pubsub_shardchannels(session: Session, *patterns: bytes) -> Reply:
    return _names(session, Kind.SHARD, "SHARDCHANNELS", patterns)


@command(
    "PUBSUB SHARDNUMSUB",
    "[shardchannel ...]",
    NONE,
    "Count who is subscribed to each of these shard channels.",
    group="pubsub",
)
def pubsub_shardnumsub(session: Session, *channels: bytes) -> Reply:
    return _counts(session, Kind.SHARD, channels)
