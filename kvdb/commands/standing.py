"""What a session counts, who its user is, and whether anything is asked of each request."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from kvdb.acl import Rules, User
from kvdb.commands.refusals import log_refusal, tell_refusal
from kvdb.commands.unfinished import Unfinished
from kvdb.commands.waiting import TakesLong
from kvdb.errors import CommandError
from kvdb.replication.primary import Replica
from kvdb.replies import OK, Reply
from kvdb.store.entry import Key

if TYPE_CHECKING:
    from kvdb.commands.instance import Instance
    from kvdb.commands.session import Session

ERROR_COUNT: Final = "error "
"""Before the code word of an error in `Counts.counts`."""

PROTOCOLS: Final = ("main", "memcached", "haus", "http")
"""What a session may speak: the ports that there are. The main one has RESP, JSON lines and telnet."""


LONG_LINE: Final = 64 * 1024
"""Bytes of JSON above which they take long: half a millisecond."""


class Counts(Unfinished):
    """The part of a session that statistics need.

    Only the session's own thread counts here; sums over all sessions are a moment old.
    """

    __slots__ = ("commands", "counts", "protocol", "received", "sent")

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self.commands = self.received = self.sent = 0  # the latter two in bytes
        self.counts: Counter[str] = Counter()  # what a dialect counts for its statistics
        self.protocol = "main"  # one of PROTOCOLS

    def totals(self) -> Counter[str]:
        """Return all that this session has counted. Any thread may ask."""
        totals = self.counts.copy()  # a copy: the session's own thread goes on counting
        totals.update(commands=self.commands, received=self.received, sent=self.sent)
        totals[f"commands {self.protocol}"] = self.commands
        return totals

    def counted(self: Session, error: CommandError) -> CommandError:  # type: ignore[misc]
        """Count an error by its code word (INFO errorstats); return it as a reply."""
        code = error.text.partition(" ")[0]
        self.counts[ERROR_COUNT + code] += 1
        if self.authenticated:
            log_refusal(self, code, error.text)
        else:
            tell_refusal(self, error.text)
        return error.as_reply()

    def count_refusals(self, replies: list[Reply]) -> None:
        """Count the errors among the replies to a run; that there is none is found out quickly.

        Measured for runs of 50: no difference for SET and INCR that could be told from noise.
        """
        if replies[0] is OK and replies.count(OK) == len(replies):
            return
        if set(map(type, replies)) != {int}:
            for reply in replies:
                if isinstance(reply, CommandError):
                    self.counted(reply)  # type: ignore[misc]


class Standing(Counts):
    """The part of a session that says whether a request is simply carried out.

    `plain` is the one question that every request is asked: whether nobody wants to know whether
    its user may do that, what step of the change feed it was, what it was and how long it took.
    """

    __slots__ = (
        "at_leisure",
        "authenticated",
        "follows",
        "in_exec",
        "notes_steps",
        "ordinary",
        "plain",
        "replica",
        "restricted",
        "timed",
        "user",
    )

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self.notes_steps = False  # replies wait for the disk: see Session.wrote
        self.restricted = False  # its user may not do everything
        self.at_leisure = True  # nobody else has to wait for what is carried out now
        self.timed = False  # the slow log wants to know how long each request takes
        self.follows = False  # it is not a client's, but carries out what a primary sends
        self.replica: Replica | None = None  # it replicates us, or is about to
        self.in_exec = False  # EXEC is carrying out what MULTI has queued
        self.plain = True  # neither `restricted` nor `notes_steps` nor `is_seen`

    @property
    def unsent_bytes(self: Session) -> int:  # type: ignore[misc]
        """What waits to be sent to it. Any thread may ask."""
        outgoing = self.outgoing
        return outgoing.unsent_bytes if outgoing else 0

    @property
    def is_replica(self) -> bool:
        """Whether it gets our stream, or a snapshot before that."""
        return self.replica is not None and self.replica.state != "handshake"

    def become(self, user: User, authenticated: bool = True) -> None:
        """Be this user from now on."""
        self.user, self.authenticated = user, authenticated
        self.look_around()

    def look_around(self) -> None:
        """Find out anew what is asked of each request. Any thread may call it."""
        while True:  # until nothing has changed meanwhile that this depends on
            before = rules, notes_steps, seen, held = self._asked()
            self.restricted = not rules.unrestricted
            self.plain = not (self.restricted or notes_steps or seen or held)
            if self.restricted or held:
                self.ordinary = False
            if before == self._asked():
                return

    def _asked(self) -> tuple[Rules, bool, bool, bool]:
        return self.user.rules, self.notes_steps, self.is_seen, self.instance.holds_back

    @property
    def is_seen(self) -> bool:
        """Whether somebody wants to see each request, or to know how long it takes."""
        return self.timed or self.instance.overseen

    def be_timed(self, timed: bool) -> None:
        """Have the slow log know how long each request takes, or not."""
        self.timed = timed
        self.look_around()

    def note_steps(self) -> None:
        """Have each request say what it has written and seen."""
        self.notes_steps = True
        self.plain = False

    def take_leisure_for(self, key: Key) -> None:
        """As take_leisure(), if the key's value is a large one that has to be encoded."""
        if not self.at_leisure and (self.store.cost(key) or 0) > LONG_LINE:
            raise TakesLong

    def take_leisure(self, needed: bool = True) -> None:
        """Say, before anything is done, that what follows takes long. Raises TakesLong."""
        if needed and not (self.at_leisure or self.in_exec):  # EXEC cannot be put off in the middle
            raise TakesLong
