"""The command table. A command is declared once, beside its handler; everything reads it here.

    @command("SETEX", "key seconds value", WRITE | GROWS, "Set a value that expires.", group="string")
    def setex(session, key, seconds, value): ...

Dispatch, COMMAND, HELP and the README's table all read this table. The arity follows from
the usage line. Registering a name twice is an error.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

from kvdb.commands.arguments import parse_integer
from kvdb.commands.categories import categories_of
from kvdb.commands.script_rules import ALLOWED_WHILE_BUSY, RUN_SCRIPTS, forbidden_in_scripts
from kvdb.commands.usage import Argument, parse_usage
from kvdb.errors import CommandError
from kvdb.replies import Reply


class Flag(enum.Flag):
    """What dispatch, clients and people need to know of a command."""

    WRITE = enum.auto()
    """May change the store."""
    READ = enum.auto()
    """Reads values or keys and changes nothing."""
    GROWS = enum.auto()
    """May need memory: the store refuses it when the budget is used up and nothing may go."""
    ADMIN = enum.auto()
    """For whoever runs the server."""
    ANYONE = enum.auto()
    """Allowed before a password was given."""
    AT_ONCE = enum.auto()
    """Inside MULTI it is carried out at once instead of being queued."""
    NOT_QUEUED = enum.auto()
    """Refused inside MULTI."""
    SLOW = enum.auto()
    """Its work grows with the number of keys."""


NONE: Final = Flag(0)
WRITE, READ, GROWS, ADMIN, ANYONE, AT_ONCE, NOT_QUEUED, SLOW = Flag

Handler = Callable[..., Reply]

NO_KEYS: Final = (0, 0, 0)
FIRST_KEY: Final = (1, 1, 1)
ALL_KEYS: Final = (1, -1, 1)
TWO_KEYS: Final = (1, 2, 1)
KEY_VALUE_PAIRS: Final = (1, -1, 2)


class Operation(Protocol):
    """What has to be known of a request to carry it out, whatever its dialect."""

    @property
    def wire_name(self) -> str:
        """As CLIENT LIST shows it."""

    @property
    def is_step(self) -> bool:
        """Whether it may be carried out under the store's lock."""


class Named(NamedTuple):
    """A request of a dialect that has no table of commands."""

    wire_name: str
    needs: Callable[[Any], Iterable[list[bytes]]]
    """Returns what it comes down to, as requests of commands in the table: whoever may not do
    all of these is refused. It is called with the request as the dialect has it."""
    is_step: bool = True


def needs_nothing(request: object) -> Iterable[list[bytes]]:
    """What `Named.needs` is for what everybody may do."""
    return ()


LONG_READS: Final = frozenset(("SCAN", "DUMP", "LCS", "BITCOUNT", "BITPOS", "MIGRATE"))
"""What is worked on without the store's lock: it reads a value, or keys, and then takes long."""

QUICK_WORDS: Final = 500
"""A request of more words takes long: half a millisecond, during which nobody else is answered."""


@dataclass
class Command:
    """One row of the table; for a container such as CLIENT, its subcommands are rows, too."""

    name: str
    usage: str
    flags: Flag
    summary: str
    group: str
    since: str
    keys: tuple[int, int, int]  # first, last and step of the arguments that are keys, as in Redis
    handler: Handler
    open_ended: bool = False  # more arguments than the usage line shows reach the handler
    many: Callable[..., list[Reply]] | None = None  # carries out a run of requests: see in_runs()
    # Where an argument says how many keys there are: its place, that of the first key, the step.
    counted_keys: tuple[int, int, int] | None = None
    arguments: list[Argument] = field(init=False)
    least: int = field(init=False)
    most: int | None = field(init=False)  # None: any number
    subcommands: dict[bytes, Command] = field(default_factory=dict)
    anyone: bool = field(init=False)
    at_once: bool = field(init=False)
    not_queued: bool = field(init=False)
    writes: bool = field(init=False)
    reads: bool = field(init=False)
    grows: bool = field(init=False)
    waits_for_data: bool = field(init=False)  # refused until the data file has been read
    touches: bool = field(init=False)  # may count as use of keys
    ordinary: bool = field(init=False)  # works on keys only: leaves the session as it is
    slow: bool = field(init=False)  # takes long, or may
    may_be_long: bool = field(init=False)  # it, or its arguments, can make it so
    is_step: bool = field(init=False)  # may be carried out under the store's lock
    runs_script: bool = field(init=False)  # on the event loop, however long it takes
    allow_busy: bool = field(init=False)  # may be run while a script keeps all others waiting
    no_script: bool = field(init=False)  # a script may not call it
    most_words: int = field(init=False)  # of a quick request, the name included
    wire_name: str = field(init=False)  # as error messages and COMMAND have it: `client|setname`

    def __post_init__(self) -> None:
        self.arguments, self.least, self.most = parse_usage(self.usage)
        if self.open_ended:
            self.most = None
        # Testing a Flag takes longer than looking up the whole command: once is enough.
        self.anyone = Flag.ANYONE in self.flags
        self.at_once = Flag.AT_ONCE in self.flags
        self.not_queued = Flag.NOT_QUEUED in self.flags
        self.writes, self.reads = Flag.WRITE in self.flags, Flag.READ in self.flags
        self.grows = Flag.GROWS in self.flags
        works_on_keys = bool(self.flags & (Flag.READ | Flag.WRITE))
        self.runs_script = self.name in RUN_SCRIPTS
        self.allow_busy = self.name in ALLOWED_WHILE_BUSY
        self.no_script = forbidden_in_scripts(self.name)
        as_in_redis = (*RUN_SCRIPTS, "FCALL", "FCALL_RO", "PING", "SAVE", "BGSAVE", "PSYNC", "SYNC")
        self.waits_for_data = works_on_keys or self.name in as_in_redis
        self.touches = works_on_keys and Flag.SLOW not in self.flags
        self.ordinary = self.touches and not self.at_once and not self.not_queued
        self.slow = Flag.SLOW in self.flags or Flag.ADMIN in self.flags
        self.is_step = Flag.ADMIN not in self.flags and self.name not in LONG_READS
        if self.group == "pubsub":  # it has nothing to do with keys, and may have many receivers
            self.is_step = False
        self.may_be_long = (
            self.slow
            or self.name in (*LONG_READS, "RESTORE")
            or not (works_on_keys or self.group in ("connection", "pubsub", "transactions"))
        ) and not self.runs_script
        self.most_words = QUICK_WORDS if self.most is None else self.most + 1
        self.wire_name = self.name.lower().replace(" ", "|")

    @cached_property
    def categories(self) -> frozenset[str]:
        """Redis's, without their `@`: rules for users name them."""
        admin = Flag.ADMIN in self.flags
        is_container = bool(self.subcommands)
        return categories_of(self.name, self.group, is_container, self.reads, self.writes, admin)

    @property
    def arity(self) -> int:
        """Redis's arity: the words of a request, the name included; negative for "at least"."""
        least = self.least + 1 + self.name.count(" ")
        return least if self.least == self.most else -least

    def accepts(self, count: int) -> bool:
        """Tell whether so many arguments can be right."""
        return self.least <= count and (self.most is None or count <= self.most)

    def key_positions(self, count: int) -> range:
        """Return which of `count` arguments are keys, counted from 0."""
        first, last, step = self.keys
        if not first:
            return range(0)
        return range(first - 1, count if last < 0 else min(last, count), step)

    def find_keys(self, arguments: Sequence[bytes]) -> range:
        """As key_positions(), also where one of the arguments counts the keys, or begins them."""
        if self.name == "MIGRATE" and not arguments[2]:  # its keys stand behind a word
            place = 5
            while place < len(arguments):
                option = arguments[place].upper()
                if option == b"KEYS":
                    return range(place + 1, len(arguments))
                place += {b"AUTH": 2, b"AUTH2": 3}.get(option, 1)
        if self.counted_keys is None:
            return self.key_positions(len(arguments))
        counter, first, step = self.counted_keys
        count = parse_integer(arguments[counter]) or 0
        end = first + count * step
        return range(first, end, step) if first < end <= len(arguments) else range(0)


REDIS_VERSION: Final = "7.4.0"
"""The Redis whose commands and replies ours follow: clients decide by it what they may send.

redis-py keeps copies of what it reads (`cache_config`) with a server of 7.4 or later only."""

TABLE: Final[dict[bytes, Command]] = {}
"""All commands by upper-case name; subcommands are found through their container."""

RUN_NAMES: Final[set[bytes]] = set()
"""The commands that many requests of can be carried out together: see in_runs()."""


def command(
    name: str,
    usage: str,
    flags: Flag,
    summary: str,
    *,
    group: str,
    keys: tuple[int, int, int] = NO_KEYS,
    since: str = "0.1.0",
    aliases: tuple[str, ...] = (),
    open_ended: bool = False,
    counted_keys: tuple[int, int, int] | None = None,
) -> Callable[[Handler], Handler]:
    """Declare the decorated function as the handler of a command.

    It is called with the session and the request's arguments, all bytes (its keys as the
    store has them), and returns a `Reply` or raises `CommandError`.
    """

    def register(handler: Handler) -> Handler:
        for each in (name, *aliases):
            row = Command(each, usage, flags, summary, group, since, keys, handler, open_ended)
            row.counted_keys = counted_keys
            container, _, subcommand = each.partition(" ")
            rows = TABLE[container.encode()].subcommands if subcommand else TABLE
            key = (subcommand or container).encode()
            if key in rows:
                raise ValueError(f"the command {each} is declared twice")
            rows[key] = row
        return handler

    return register


def in_runs(
    name: str,
) -> Callable[[Callable[..., list[Reply]]], Callable[..., list[Reply]]]:
    """Declare what carries out many requests of a command that arrived together.

    It is called with the session and one list per argument, and answers as the handler would
    for one request after the other; what the handler would raise takes its place in the list.
    """

    def register(many: Callable[..., list[Reply]]) -> Callable[..., list[Reply]]:
        TABLE[name.encode()].many = many
        RUN_NAMES.add(name.encode())
        return many

    return register


def container(name: str, summary: str, *, group: str, handler: Handler | None = None) -> None:
    """Declare a command that consists of subcommands, and its HELP.

    Without a subcommand it is refused, unless it has a handler (COMMAND does).
    """

    def refuse(session: Any, *arguments: bytes) -> Reply:
        raise AssertionError("find() leads to a subcommand")

    def show_help(session: Any) -> Reply:
        return help_lines(TABLE[name.encode()])

    usage = "[subcommand [argument ...]]" if handler else "subcommand [argument ...]"
    command(name, usage, NONE, summary, group=group)(handler or refuse)
    command(f"{name} HELP", "", NONE, f"List the subcommands of {name}.", group=group)(show_help)


def help_lines(row: Command) -> list[bytes]:
    """Return the text that a container's HELP answers, in Redis's form."""
    lines = [f"{row.name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for each in sorted(row.subcommands.values(), key=lambda each: each.name):
        lines.append(f"{each.name.partition(' ')[2]} {each.usage}".rstrip())
        lines.append(f"    {each.summary}")
    return [line.encode() for line in lines]


def find(request: list[bytes]) -> tuple[Command, list[bytes]]:
    """Return the row that a request names, and its arguments.

    Raises CommandError, in Redis's words, if there is no such command or subcommand, or the
    number of arguments cannot be right.
    """
    row = TABLE.get(request[0]) or TABLE.get(request[0].upper())
    if row is None:
        raise _unknown_command(request)
    arguments = request[1:]
    if row.subcommands and arguments:
        subcommand = row.subcommands.get(arguments[0].upper())
        if subcommand is None:
            raise CommandError(
                f"ERR unknown subcommand '{_shown(arguments[0])}'. Try {row.name} HELP."
            )
        row, arguments = subcommand, arguments[1:]
    if not row.accepts(len(arguments)):
        raise CommandError(f"ERR wrong number of arguments for '{row.wire_name}' command")
    return row, arguments


def every_command() -> Iterator[Command]:
    """Return all rows, subcommands behind their container, by name."""
    for name in sorted(TABLE):
        yield TABLE[name]
        yield from sorted(TABLE[name].subcommands.values(), key=lambda row: row.name)


def _unknown_command(request: list[bytes]) -> CommandError:
    """As Redis words it: name and arguments are shown, 128 bytes of each at most."""
    shown = ""
    for argument in request[1:]:
        if len(shown) >= 128:
            break
        shown += f"'{_shown(argument, 128 - len(shown))}' "
    return CommandError(
        f"ERR unknown command '{_shown(request[0])}', with args beginning with: {shown}"
    )


def _shown(text: bytes, most: int = 128) -> str:
    """Return what a client sent, cut and on one line, so that it cannot forge a reply."""
    return text[:most].decode("utf-8", "surrogateescape").replace("\r", " ").replace("\n", " ")
