"""COMMAND for programs, HELP for people: both read the command table."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import Final

from kvdb import errors
from kvdb.commands.access import flags_of_keys, key_flags
from kvdb.commands.session import Session
from kvdb.commands.table import (
    ADMIN,
    ANYONE,
    AT_ONCE,
    GROWS,
    NONE,
    NOT_QUEUED,
    READ,
    TABLE,
    WRITE,
    Command,
    command,
    container,
    every_command,
)
from kvdb.commands.usage import Argument
from kvdb.errors import CommandError
from kvdb.glob import compile_glob
from kvdb.replies import Reply, SimpleString, Verbatim

_REDIS_FLAGS = {
    WRITE: b"write",
    READ: b"readonly",
    GROWS: b"denyoom",
    ADMIN: b"admin",
    ANYONE: b"no_auth",
    NOT_QUEUED: b"no_multi",
}


def _describe(row: Command) -> Reply:
    """Return what COMMAND INFO says of a command: the ten elements that Redis has."""
    flags = {name for flag, name in _REDIS_FLAGS.items() if flag in row.flags}
    if "fast" in row.categories:
        flags.add(b"fast")
    if row.counted_keys or row.name == "MIGRATE":
        flags.add(b"movablekeys")
    is_itself_a_command = not row.subcommands or row.name == "COMMAND"
    if not row.waits_for_data and is_itself_a_command:
        flags |= {b"loading", b"stale"}
    if row.no_script:
        flags.add(b"noscript")
    if row.allow_busy:
        flags.add(b"allow_busy")
    if row.counted_keys and row.group == "scripting":
        flags |= {b"stale", b"skip_monitor", b"no_mandatory_keys"}
        flags |= {b"readonly"} if row.name.endswith("_RO") else set()
    if row.group == "pubsub" and is_itself_a_command and not row.name.endswith(" HELP"):
        flags.add(b"pubsub")
    # Redis counts a subcommand's key positions from the container's name.
    first, last, step = row.keys
    if first and " " in row.name:
        first, last = first + 1, last + 1 if last > 0 else last
    return [
        row.wire_name.encode(),
        row.arity,
        frozenset(SimpleString(flag) for flag in flags),
        first,
        last,
        step,
        frozenset(SimpleString(b"@" + category.encode()) for category in row.categories),
        [],
        _key_specs(row, first, last, step),
        [_describe(each) for each in row.subcommands.values()],
    ]


def _key_specs(row: Command, first: int, last: int, step: int) -> list[Reply]:
    """Return where the keys stand, in the form of COMMAND's key specifications."""
    if row.counted_keys:
        first = row.counted_keys[0] + 1  # of the count, from which on the keys are found
        place, step = row.counted_keys[1] + 1 - first, row.counted_keys[2]
        kind, found = b"keynum", {b"keynumidx": 0, b"firstkey": place, b"keystep": step}
    elif first:
        last = last if last < 0 else last - first
        kind, found = b"range", {b"lastkey": last, b"keystep": step, b"limit": 0}
    else:
        return []
    specs: list[Reply] = []
    *before, flags = key_flags(row)
    for each in before:  # the first key is another matter than the others
        only = {b"lastkey": 0, b"keystep": 1, b"limit": 0}
        specs.append(_key_spec(each, first, b"range", only))
        first, found[b"lastkey"] = first + 1, last if last < 0 else last - 1
    specs.append(_key_spec(flags, first, kind, found))
    if row.name == "MIGRATE":
        specs.append(_KEYS_BEHIND_A_WORD)
    return specs


def _key_spec(flags: str, first: int, kind: bytes, found: dict[bytes, int]) -> Reply:
    return {
        b"flags": frozenset(SimpleString(flag.encode()) for flag in flags.split()),
        b"begin_search": {b"type": b"index", b"spec": {b"index": first}},
        b"find_keys": {b"type": kind, b"spec": found},
    }


_KEYS_BEHIND_A_WORD: Final[Reply] = {
    b"flags": frozenset(map(SimpleString, (b"RW", b"access", b"delete", b"incomplete"))),
    b"begin_search": {b"type": b"keyword", b"spec": {b"keyword": b"KEYS", b"startfrom": -2}},
    b"find_keys": {b"type": b"range", b"spec": {b"lastkey": -1, b"keystep": 1, b"limit": 0}},
}


def _find(name: bytes) -> Command | None:
    container_name, _, subcommand = name.upper().partition(b"|")
    row = TABLE.get(container_name)
    return row.subcommands.get(subcommand) if row and subcommand else row


def _describe_all(session: Session) -> Reply:
    return [_describe(row) for row in TABLE.values()]


container("COMMAND", "Describe the commands, for programs.", group="server", handler=_describe_all)


@command("COMMAND COUNT", "", NONE, "Return the number of commands.", group="server")
def command_count(session: Session) -> Reply:
    return len(TABLE)


@command(
    "COMMAND INFO", "[command-name ...]", NONE, "Describe these commands, or all.", group="server"
)
def command_info(session: Session, *names: bytes) -> Reply:
    session.take_leisure()  # it may be about all commands
    if not names:
        return _describe_all(session)
    rows = [_find(name) for name in names]
    return [_describe(row) if row else None for row in rows]


_KEY_NAMES = ("key", "key1", "key2", "newkey", "source", "destination")


def _document_argument(argument: Argument, keys: bool) -> dict[bytes, Reply]:
    described: dict[bytes, Reply] = {
        b"name": (argument.name or argument.token or "block").lower().encode()
    }
    if argument.parts:
        described[b"type"] = b"oneof" if argument.choices else b"block"
    elif not argument.name:
        described[b"type"] = b"pure-token"
    elif keys and argument.name in _KEY_NAMES:
        described |= {b"type": b"key", b"key_spec_index": 0}
    else:
        described[b"type"] = b"string"
    if argument.token:
        described[b"token"] = argument.token.encode()
    if argument.optional or argument.repeated:
        flags = [b"optional"] * argument.optional + [b"multiple"] * argument.repeated
        described[b"flags"] = [SimpleString(flag) for flag in flags]
    if argument.parts:
        described[b"arguments"] = [_document_argument(part, keys) for part in argument.parts]
    return described


def _put_together(arguments: list[Argument]) -> list[Argument]:
    """Make one argument of `key [key ...]`, which there are several of, as Redis describes it."""
    *before, last = arguments
    again = last.parts if last.parts and not last.choices else [last]
    begin = len(before) - len(again)
    if not (last.optional and last.repeated and begin >= 0):
        return arguments
    if [part.name for part in again] != [part.name for part in before[begin:]]:
        return arguments
    return [*before[:begin], replace(last, optional=False)]


def _document(row: Command) -> dict[bytes, Reply]:
    described: dict[bytes, Reply] = {
        b"summary": row.summary.encode(),
        b"since": row.since.encode(),
        b"group": row.group.encode(),
    }
    if row.arguments and not row.subcommands:
        described[b"arguments"] = [
            _document_argument(argument, bool(row.keys[0]))
            for argument in _put_together(row.arguments)
        ]
    if row.subcommands:
        described[b"subcommands"] = {
            each.wire_name.encode(): _document(each) for each in row.subcommands.values()
        }
    return described


@command(
    "COMMAND DOCS",
    "[command-name ...]",
    NONE,
    "Return summaries and arguments of these commands, or of all.",
    group="server",
)
def command_docs(session: Session, *names: bytes) -> Reply:
    session.take_leisure()  # it may be about all commands
    rows = [_find(name) for name in names] if names else list(TABLE.values())
    return {row.wire_name.encode(): _document(row) for row in rows if row}


@command(
    "COMMAND LIST",
    "[FILTERBY [MODULE module-name | ACLCAT category | PATTERN pattern]]",
    NONE,
    "List the names of all commands, or of some.",
    group="server",
)
def command_list(session: Session, *options: bytes) -> Reply:
    session.take_leisure()  # it may be about all commands
    rows = list(every_command())
    if options:
        if len(options) != 3 or options[0].upper() != b"FILTERBY":
            raise CommandError(errors.SYNTAX)
        match options[1].upper():
            case b"MODULE":
                rows = []
            case b"ACLCAT":
                category = options[2].lower().decode("ascii", "replace")
                rows = [row for row in rows if category in row.categories]
            case b"PATTERN":
                matches = compile_glob(options[2].lower())
                rows = [row for row in rows if matches(row.wire_name.encode())]
            case _:
                raise CommandError(errors.SYNTAX)
    return [row.wire_name.encode() for row in rows]


@command(
    "COMMAND GETKEYS",
    "command [argument ...]",
    NONE,
    "Return which arguments of a request are keys.",
    group="server",
)
def command_getkeys(session: Session, *request: bytes) -> Reply:
    row, arguments = _with_keys(request)
    return [arguments[position] for position in row.find_keys(arguments)]


@command(
    "COMMAND GETKEYSANDFLAGS",
    "command [argument ...]",
    NONE,
    "Return which arguments of a request are keys, and what is done to each.",
    group="server",
)
def command_getkeysandflags(session: Session, *request: bytes) -> Reply:
    return [
        [key, frozenset(SimpleString(flag.encode()) for flag in flags if "_" not in flag)]
        for key, flags in flags_of_keys(*_with_keys(request))
    ]


def _with_keys(request: tuple[bytes, ...]) -> tuple[Command, list[bytes]]:
    """Return the command and the arguments of a request that has keys. Raises CommandError."""
    row = _find(request[0])
    arguments = request[1:]
    if row is not None and row.subcommands and arguments:
        row = row.subcommands.get(arguments[0].upper())
        arguments = arguments[1:]
    if row is None:
        raise CommandError("ERR Invalid command specified")
    if not (row.keys[0] or row.counted_keys):
        raise CommandError("ERR The command has no key arguments")
    if not row.accepts(len(arguments)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    if row.counted_keys and not row.find_keys(arguments):
        raise CommandError("ERR Invalid arguments specified for command")
    return row, list(arguments)


# --- for people ---------------------------------------------------------------------------

GROUPS = {
    "string": "Strings and counters",
    "bitmap": "Bits",
    "generic": "Keys",
    "pubsub": "Publish and subscribe",
    "transactions": "Transactions",
    "connection": "Connection",
    "server": "Server",
    "scripting": "Scripts",
}


@command("HELP", "[command ...]", AT_ONCE, "Explain the commands, or one of them.", group="server")
def help_(session: Session, *words: bytes) -> Reply:
    if not words:
        return Verbatim(_overview())
    row = _find(b"|".join(words))
    if row is None:
        shown = b" ".join(words)[:128].decode("utf-8", "replace")
        raise CommandError(f"ERR no such command: {shown}. HELP lists all")
    lines = [f"{row.name} {row.usage}".rstrip(), f"  {row.summary}"]
    for each in row.subcommands.values():
        lines += ["", f"{each.name} {each.usage}".rstrip(), f"  {each.summary}"]
    return Verbatim("\r\n".join(lines))


def _overview() -> str:
    lines = []
    for group, title in GROUPS.items():
        names = sorted(row.name for row in TABLE.values() if row.group == group)
        wrapped = textwrap.wrap(" ".join(names), width=70)
        lines += [f"{title}:", *(f"  {line}" for line in wrapped)]
    lines.append("HELP SET explains SET. QUIT ends the conversation.")
    return "\r\n".join(lines)
