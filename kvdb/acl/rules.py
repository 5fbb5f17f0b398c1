"""What one user may do: Redis's rules, how they are changed, and what follows from them.

    on >secret ~app:* %R~shared:* resetchannels &news.* -@all +@read +config|get

Rules are immutable, so whoever decides by them sees all of a change or nothing of it. Redis's
selectors (rules in parentheses) are refused. The normal form is that of Redis 7.2 and Valkey: the
rules about commands in the order in which they were given, less those that a later one undoes.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from kvdb.errors import CommandError
from kvdb.glob import compile_glob

READ: Final = 1
WRITE: Final = 2

UNKNOWN: Final = "Unknown command or category name in ACL"
SYNTAX: Final = "Syntax error"
PATTERN_AFTER_ALL: Final = (
    "Adding a pattern after the * pattern (or the '{all}' flag) is not valid and does not have "
    "any effect. Try '{reset}' to start with an empty list of {what}"
)
NO_SUCH_PASSWORD: Final = "The password you are trying to remove from the user does not exist"
BAD_HASH: Final = (
    "The password hash must be exactly 64 characters and contain only lowercase hexadecimal "
    "characters"
)
FIRST_ARGUMENT_OF_SUBCOMMAND: Final = "Allowing first-arg of a subcommand is not supported"

_NOBODYS: Final = secrets.token_hex(32)  # what is compared where there is no password

_HASH: Final = re.compile(rb"[0-9a-f]{64}")


class Subject(Protocol):
    """What has to be known of a command to decide who may run it."""

    @property
    def wire_name(self) -> str:
        """`get` or `config|get`."""

    @property
    def anyone(self) -> bool:
        """Everybody may run it, whatever the rules say: AUTH, for one."""

    @property
    def categories(self) -> frozenset[str]:
        """Without their `@`."""

    @property
    def subcommands(self) -> Mapping[bytes, Subject]:
        """By upper-case name."""


Commands = Mapping[bytes, Subject]
"""All commands by upper-case name."""


class BadRule(Exception):
    """A rule that cannot be taken; the text is Redis's reason."""


class Reason(enum.Enum):
    """What it is that a user may not."""

    COMMAND = "command"
    KEY = "key"
    CHANNEL = "channel"
    AUTH = "auth"  # who it is: a wrong password


class Denial(NamedTuple):
    """Why a request is refused."""

    reason: Reason
    object: bytes  # the command's name, the key or the channel


class Pattern(NamedTuple):
    """Keys that may be used, for reading, writing or both; or channels."""

    text: bytes
    access: int
    matches: Callable[[bytes], object]

    def __str__(self) -> str:
        return str(self.text)


@dataclass(frozen=True)
class Rules:
    """What one user may do. As it is made, it is a new user's: nothing, and off."""

    enabled: bool = False
    nopass: bool = False
    passwords: tuple[str, ...] = ()  # SHA-256, in hexadecimal digits
    all_keys: bool = False
    keys: tuple[Pattern, ...] = ()
    all_channels: bool = False
    channels: tuple[Pattern, ...] = ()
    allowed: frozenset[str] = frozenset()  # names of commands and subcommands
    first_arguments: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    begins_with_all: bool = False  # +@all came last, of that and -@all
    all_commands: bool = False  # and nothing was taken away since then
    command_rules: tuple[bytes, ...] = ()  # since then

    @property
    def unrestricted(self) -> bool:
        """Whether nothing is refused."""
        return self.all_commands and self.all_keys and self.all_channels

    @property
    def is_open(self) -> bool:
        """Whether anybody may be this user without a password."""
        return self.enabled and self.nopass

    def takes(self, password: bytes) -> bool:
        """Tell whether this is a password, in a time that does not depend on the answer."""
        given = hashlib.sha256(password).hexdigest()
        right = False
        for each in self.passwords or (_NOBODYS,):
            right |= hmac.compare_digest(given, each)
        return right

    # --- decisions -----------------------------------------------------------------------

    def denial(
        self,
        command: Subject,
        arguments: list[bytes],
        keys: Callable[[], Iterable[tuple[bytes, int]]],
        channels: Callable[[], Iterable[tuple[bytes, bool]]],
    ) -> Denial | None:
        """Return why a request is refused, or None.

        `keys` gives its keys and what is done to each, `channels` its channels and whether each
        is a pattern; they are called only if it depends on them.
        """
        if not self.all_commands and not self._may_run(command, arguments):
            return Denial(Reason.COMMAND, command.wire_name.encode())
        if not self.all_keys:
            for key, access in keys():
                if not self._may_use(key, access):
                    return Denial(Reason.KEY, key)
        if not self.all_channels:
            for channel, is_pattern in channels():
                if not self.may_hear(channel, is_pattern):
                    return Denial(Reason.CHANNEL, channel)
        return None

    def _may_run(self, command: Subject, arguments: list[bytes]) -> bool:
        name = command.wire_name
        if command.anyone or name in self.allowed:
            return True
        firsts = self.first_arguments.get(name, ())
        return bool(arguments) and arguments[0].lower() in firsts

    def _may_use(self, key: bytes, access: int) -> bool:
        return any(access & ~pattern.access == 0 and pattern.matches(key) for pattern in self.keys)

    def may_hear(self, channel: bytes, is_pattern: bool) -> bool:
        """Tell whether a channel may be used; a pattern only if it is allowed as it stands."""
        return self.all_channels or any(
            channel == pattern.text if is_pattern else pattern.matches(channel)
            for pattern in self.channels
        )

    def may_hear_all(self, channels: Iterable[bytes], patterns: Iterable[bytes]) -> bool:
        """Tell whether all of these may be used."""
        return all(self.may_hear(each, False) for each in channels) and all(
            self.may_hear(each, True) for each in patterns
        )

    # --- as text -------------------------------------------------------------------------

    def describe_commands(self) -> bytes:
        """Return the rules about commands."""
        begin = b"+@all" if self.begins_with_all else b"-@all"
        return b" ".join([begin, *self.command_rules])

    def describe_keys(self) -> bytes:
        """Return the rules about keys."""
        if self.all_keys:
            return b"~*"
        before = {READ: b"%R~", WRITE: b"%W~", READ | WRITE: b"~"}
        return b" ".join(before[pattern.access] + pattern.text for pattern in self.keys)

    def describe_channels(self) -> bytes:
        """Return the rules about channels."""
        if self.all_channels:
            return b"&*"
        return b" ".join(b"&" + pattern.text for pattern in self.channels)

    def flags(self) -> list[bytes]:
        """Return what is known of the user beside all that."""
        return [b"on" if self.enabled else b"off", *([b"nopass"] if self.nopass else [])]

    def describe(self) -> bytes:
        """Return all rules on one line: given to changed(), it makes the same rules."""
        channels = self.describe_channels()
        words = [
            *self.flags(),
            *(b"#" + password.encode() for password in self.passwords),
            self.describe_keys(),
            channels if self.all_channels else b"resetchannels",
            b"" if self.all_channels else channels,
            self.describe_commands(),
        ]
        return b" ".join(filter(None, words))

    # --- changes -------------------------------------------------------------------------

    def changed(self, rule: bytes, commands: Commands) -> Rules:
        """Return these rules with another one applied. Raises BadRule."""
        word = rule.lower()
        if (simple := _SIMPLE.get(word)) is not None:
            return simple(self)
        if word in (b"allcommands", b"+@all"):
            everything = frozenset(each.wire_name for each in _all(commands))
            return replace(
                self, allowed=everything, first_arguments={}, begins_with_all=True,
                all_commands=True, command_rules=(),
            )  # fmt: skip
        kind, rest = rule[:1], rule[1:]
        if kind in (b">", b"#", b"<", b"!"):
            return self._with_password(kind, rest)
        if kind in (b"~", b"%"):
            return self._with_key_pattern(rule)
        if kind == b"&":
            if self.all_channels:
                raise BadRule(
                    PATTERN_AFTER_ALL.format(
                        all="allchannels", reset="resetchannels", what="channels"
                    )
                )
            pattern = Pattern(rest, READ | WRITE, _compile(rest))
            known = any(each.text == rest for each in self.channels)
            return self if known else replace(self, channels=(*self.channels, pattern))
        if kind in (b"+", b"-"):
            if rest.startswith(b"@"):
                return self._with_category(kind == b"+", rest.lower(), commands)
            return self._with_command(kind == b"+", rest.lower(), commands)
        raise BadRule(SYNTAX)

    def _with_password(self, kind: bytes, rest: bytes) -> Rules:
        if kind in b"#!":
            if not _HASH.fullmatch(rest):
                raise BadRule(BAD_HASH)
            password = rest.decode()
        else:
            password = hashlib.sha256(rest).hexdigest()
        others = tuple(each for each in self.passwords if each != password)
        if kind in b">#":
            known = len(others) < len(self.passwords)
            passwords = self.passwords if known else (*others, password)
            return replace(self, passwords=passwords, nopass=False)
        if others == self.passwords:
            raise BadRule(NO_SUCH_PASSWORD)
        return replace(self, passwords=others)

    def _with_key_pattern(self, rule: bytes) -> Rules:
        if self.all_keys:
            raise BadRule(
                PATTERN_AFTER_ALL.format(all="allkeys", reset="resetkeys", what="patterns")
            )
        access, text = READ | WRITE, rule[1:]
        if rule.startswith(b"%"):
            letters, _, text = text.partition(b"~")
            wanted = letters.upper()
            if wanted not in (b"R", b"W", b"RW", b"WR"):
                raise BadRule(SYNTAX)
            access = READ * (b"R" in wanted) | WRITE * (b"W" in wanted)
        pattern = Pattern(text, access, _compile(text))
        keys = list(self.keys)
        for place, each in enumerate(keys):
            if each.text == text:
                keys[place] = each._replace(access=each.access | access)
                return replace(self, keys=tuple(keys))
        return replace(self, keys=(*keys, pattern))

    def _with_category(self, allow: bool, word: bytes, commands: Commands) -> Rules:
        category = word[1:].decode("ascii", "replace")
        if category not in CATEGORIES:
            raise BadRule(UNKNOWN)
        meant: set[str] = set()
        for each in _all(commands):
            if category in each.categories:
                meant |= _with_subcommands(each)
        return self._allowing(allow, meant, word)

    def _with_command(self, allow: bool, name: bytes, commands: Commands) -> Rules:
        container, bar, rest = name.partition(b"|")
        command = commands.get(container.upper())
        if not bar or not allow:
            found = command.subcommands.get(rest.upper()) if command and bar else command
            if found is None:
                raise BadRule(UNKNOWN)
            return self._allowing(allow, _with_subcommands(found), name)
        if command is None or b"|" in rest:
            known = command and rest.partition(b"|")[0].upper() in command.subcommands
            raise BadRule(FIRST_ARGUMENT_OF_SUBCOMMAND if known else UNKNOWN)
        if not rest:
            raise BadRule(SYNTAX)
        if command.subcommands:
            subcommand = command.subcommands.get(rest.upper())
            if subcommand is None:
                raise BadRule(UNKNOWN)
            return self._allowing(True, {subcommand.wire_name}, name)
        firsts = self.first_arguments.get(command.wire_name, ())
        if rest not in firsts:
            firsts = (*firsts, rest)
        first_arguments = {**self.first_arguments, command.wire_name: firsts}
        return replace(
            self, first_arguments=first_arguments,
            command_rules=(*_without(self.command_rules, name), b"+" + name),
        )  # fmt: skip

    def _allowing(self, allow: bool, names: set[str], rule: bytes) -> Rules:
        """Return these rules with some commands allowed or refused, and the rule noted down."""
        return replace(
            self,
            allowed=self.allowed | names if allow else self.allowed - names,
            first_arguments={
                name: firsts for name, firsts in self.first_arguments.items() if name not in names
            },
            all_commands=self.all_commands and allow,
            command_rules=(
                *_without(self.command_rules, rule), (b"+" if allow else b"-") + rule,
            ),
        )  # fmt: skip


def _without(rules: Iterable[bytes], name: bytes) -> Iterator[bytes]:
    """Leave out the rules that one about `name` undoes: about the same, or a part of it."""
    for rule in rules:
        if rule[1:] != name and not rule[1:].startswith(name + b"|"):
            yield rule


def _all(commands: Commands) -> Iterator[Subject]:
    for command in commands.values():
        yield command
        yield from command.subcommands.values()


def _with_subcommands(command: Subject) -> set[str]:
    return {command.wire_name, *(each.wire_name for each in command.subcommands.values())}


def _compile(pattern: bytes) -> Callable[[bytes], object]:
    if re.search(rb"[\s\0]", pattern):
        raise BadRule(SYNTAX)
    try:
        return compile_glob(pattern)
    except CommandError as error:
        raise BadRule(error.text.removeprefix("ERR ")) from None


def _no_commands(rules: Rules) -> Rules:
    return replace(
        rules, allowed=frozenset(), first_arguments={}, begins_with_all=False,
        all_commands=False, command_rules=(),
    )  # fmt: skip


_SIMPLE: Final[dict[bytes, Callable[[Rules], Rules]]] = {
    b"": lambda rules: rules,
    b"on": lambda rules: replace(rules, enabled=True),
    b"off": lambda rules: replace(rules, enabled=False),
    b"nopass": lambda rules: replace(rules, nopass=True, passwords=()),
    b"resetpass": lambda rules: replace(rules, nopass=False, passwords=()),
    b"reset": lambda rules: Rules(),
    b"allkeys": lambda rules: replace(rules, all_keys=True, keys=()),
    b"~*": lambda rules: replace(rules, all_keys=True, keys=()),
    b"resetkeys": lambda rules: replace(rules, all_keys=False, keys=()),
    b"allchannels": lambda rules: replace(rules, all_channels=True, channels=()),
    b"&*": lambda rules: replace(rules, all_channels=True, channels=()),
    b"resetchannels": lambda rules: replace(rules, all_channels=False, channels=()),
    b"nocommands": _no_commands,
    b"-@all": _no_commands,
    # What files of Redis may say of things that there are not here.
    b"sanitize-payload": lambda rules: rules,
    b"skip-sanitize-payload": lambda rules: rules,
    b"clearselectors": lambda rules: rules,
}

CATEGORIES: Final = (
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap",
    "hyperloglog", "geo", "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous",
    "connection", "transaction", "scripting",
)  # fmt: skip
"""Redis's, in its order; those of types that there are not here hold no command."""
