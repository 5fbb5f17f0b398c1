"""COMMAND for programs, HELP for people: both read the command table."""

from __future__ import annotations

import textwrap

from kvdb import errors
from kvdb.commands.session import Session
from kvdb.commands.table import (
    ADMIN,
    ANYONE,
    AT_ONCE,
    GROWS,
    NONE,
    NOT_QUEUED,
    READ,
    SLOW,
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
_REDIS_GROUPS = {
    "generic": b"@keyspace",
    "string": b"@string",
    "transactions": b"@transaction",
    "connection": b"@connection",
}


def _describe(row: Command) -> Reply:
    """Return what COMMAND INFO says of a command: the ten elements that Redis has."""
    flags = {name for flag, name in _REDIS_FLAGS.items() if flag in row.flags}
    if SLOW not in row.flags:
        flags.add(b"fast")
    categories = {b"@slow" if SLOW in row.flags else b"@fast"}
    if WRITE in row.flags:
        categories.add(b"@write")
    if READ in row.flags:
        categories.add(b"@read")
    if ADMIN in row.flags:
        categories |= {b"@admin", b"@dangerous"}
    if row.group in _REDIS_GROUPS:
        categories.add(_REDIS_GROUPS[row.group])
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
        frozenset(SimpleString(category) for category in categories),
        [],
        [_key_spec(first, last, step, WRITE in row.flags)] if first else [],
        [_describe(each) for each in row.subcommands.values()],
    ]


def _key_spec(first: int, last: int, step: int, writes: bool) -> Reply:
    """Return where the keys stand, in the form of COMMAND's key specifications."""
    found = {b"lastkey": last if last < 0 else last - first, b"keystep": step, b"limit": 0}
    return {
        b"flags": frozenset([SimpleString(b"RW" if writes else b"RO")]),
        b"begin_search": {b"type": b"index", b"spec": {b"index": first}},
        b"find_keys": {b"type": b"range", b"spec": found},
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


def _document_argument(argument: Argument, keys: bool) -> dict[bytes, Reply]:
    described: dict[bytes, Reply] = {
        b"name": (argument.name or argument.token or "block").lower().encode()
    }
    if argument.parts:
        described[b"type"] = b"oneof" if argument.choices else b"block"
    elif not argument.name:
        described[b"type"] = b"pure-token"
    elif keys and argument.name in ("key", "newkey", "source", "destination"):
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


def _document(row: Command) -> dict[bytes, Reply]:
    described: dict[bytes, Reply] = {
        b"summary": row.summary.encode(),
        b"since": row.since.encode(),
        b"group": row.group.encode(),
    }
    if row.arguments and not row.subcommands:
        described[b"arguments"] = [
            _document_argument(argument, bool(row.keys[0])) for argument in row.arguments
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
                category = SimpleString(b"@" + options[2].lower())
                rows = [row for row in rows if category in _describe(row)[6]]
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
    row = _find(request[0])
    arguments = request[1:]
    if row is not None and row.subcommands and arguments:
        row = row.subcommands.get(arguments[0].upper())
        arguments = arguments[1:]
    if row is None:
        raise CommandError("ERR Invalid command specified")
    if not row.keys[0]:
        raise CommandError("ERR The command has no key arguments")
    if not row.accepts(len(arguments)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    return [arguments[position] for position in row.key_positions(len(arguments))]


# --- for people ---------------------------------------------------------------------------

GROUPS = {
    "string": "Strings and counters",
    "generic": "Keys",
    "transactions": "Transactions",
    "connection": "Connection",
    "server": "Server",
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
