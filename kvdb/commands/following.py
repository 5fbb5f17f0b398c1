"""Being a replica: whom we follow, and how the commands of its stream are carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdb.acl import User
from kvdb.commands.session import Session
from kvdb.commands.waiting import TakesLong
from kvdb.errors import CommandError
from kvdb.replication.link import Certificates, Primary
from kvdb.replication.standby import Standby

if TYPE_CHECKING:
    from kvdb.commands.instance import Instance
    from kvdb.config import Config
    from kvdb.replies import Reply


def follow(instance: Instance, host: str, port: int) -> None:
    """Replicate this server from now on, and let nobody else write.

    Who replicates us has to begin anew, once we have what our primary has. A pause ends: whoever
    waits for it to write is to know that there is no writing here.
    """
    unfollow(instance)
    config = instance.config

    def primary() -> Primary:
        own = config.primary_user, config.primary_password
        return Primary(host, port, *own, _certificates(config))

    def loading(begins: bool) -> None:
        instance.loading = begins

    instance.standby = standby = Standby(
        primary,
        instance.store,
        lambda: StreamExecutor(instance),
        lambda: config.port,
        loading,
        instance.monotonic,
    )
    instance.store.expires = False
    instance.replication.dismiss()
    if instance.paused:
        instance.overseer.end_pause()
    _look_around(instance)
    standby.start()


def _certificates(config: Config) -> Certificates | None:
    if config.primary_tls_ca is None:
        return None
    return Certificates(config.primary_tls_ca, config.tls_cert, config.tls_key)


def unfollow(instance: Instance) -> None:
    """Follow nobody any more: what is here is ours, and clients may write it."""
    standby, instance.standby = instance.standby, None
    if standby is not None:
        standby.stop()
        instance.store.expires = True
        _look_around(instance)


def _look_around(instance: Instance) -> None:
    for session in instance.sessions():
        session.look_around()


class StreamExecutor:
    """Carries out the commands of a primary's stream: what is one step there is one here."""

    def __init__(self, instance: Instance) -> None:
        self._session = session = Session(instance, "primary")
        session.follows = True
        session.become(User(b"primary", instance.users.everything()))
        self._queue: list[list[bytes]] | None = None
        self._is_astray = False  # the database that was selected is none of ours

    @property
    def in_transaction(self) -> bool:
        """See `Executor`."""
        return self._queue is not None

    def forget_transaction(self) -> None:
        """See `Executor`."""
        self._queue = None

    def __call__(self, words: list[bytes]) -> str | None:
        """See `Executor`."""
        name = words[0].upper()
        if name == b"MULTI":
            self._queue = []
            return None
        if name == b"EXEC":
            queue, self._queue = self._queue or [], None
            with self._session.store.atomic():
                refusals = [self._execute(each) for each in queue]
            return next(filter(None, refusals), None)
        if self._queue is not None:
            self._queue.append(words)
            return None
        return self._execute(words)

    def _execute_here(self, words: list[bytes]) -> Reply:
        """Carry out a command; what is due counts as there, as it did for the primary."""
        store = self._session.store
        with store.atomic():
            store.hides_due = False
            try:
                return self._session.execute(words)
            finally:
                store.hides_due = True

    def _execute(self, words: list[bytes]) -> str | None:
        name = words[0].upper()
        if self._is_astray and name not in (b"SELECT", b"FLUSHALL"):
            return "its database is not here"
        try:
            reply = self._execute_here(words)
        except TakesLong:
            return "it would have to wait"
        refusal = reply.text if isinstance(reply, CommandError) else None
        if name == b"SELECT":
            self._is_astray = refusal is not None
        return refusal
