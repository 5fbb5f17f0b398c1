"""ACL: users, and what they may do. The rules themselves are in `kvdb.acl`."""

from __future__ import annotations

import logging
import re
import secrets
from pathlib import Path
from typing import Final

from kvdb.acl import BadRule, BadUsersFile, User
from kvdb.acl.rules import CATEGORIES
from kvdb.acl.users import DEFAULT, line_of
from kvdb.commands.arguments import integer
from kvdb.commands.permissions import denial_of, explain
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, NONE, command, container, every_command, find
from kvdb.errors import CommandError
from kvdb.replies import OK, Reply

log = logging.getLogger(__name__)

container("ACL", "Look at the users and what they may do, and change that.", group="server")

NO_FILE: Final = (
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users "
    "via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis "
    "configuration file set) in order to store users in the Redis configuration."
)
NOT_SAVED: Final = (
    "ERR There was an error trying to save the ACLs. Please check the server logs for more "
    "information"
)
NOTHING_CHANGED: Final = (
    "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
)


def _wrong_number(subcommand: str) -> CommandError:
    return CommandError(
        f"ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try ACL HELP."
    )


def _shown(text: bytes) -> str:
    return text[:128].decode("utf-8", "surrogateescape")


@command(
    "ACL CAT",
    "[category]",
    NONE,
    "List the categories of commands, or the commands of one.",
    group="server",
    open_ended=True,
)
def acl_cat(session: Session, *category: bytes) -> Reply:
    if not category:
        return [name.encode() for name in CATEGORIES]
    if len(category) > 1:
        raise _wrong_number("CAT")
    name = category[0].lower().decode("ascii", "replace")
    if name not in CATEGORIES:
        raise CommandError(f"ERR Unknown category '{_shown(category[0])}'")
    return [row.wire_name.encode() for row in every_command() if name in row.categories]


@command("ACL WHOAMI", "", NONE, "Return who this connection is.", group="server")
def acl_whoami(session: Session) -> Reply:
    return session.user.name


@command(
    "ACL GENPASS",
    "[bits]",
    NONE,
    "Make up a password that nobody can guess.",
    group="server",
    open_ended=True,
)
def acl_genpass(session: Session, *bits: bytes) -> Reply:
    if len(bits) > 1:
        raise _wrong_number("GENPASS")
    number = integer(bits[0]) if bits else 256
    if not 1 <= number <= 4096:
        raise CommandError(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a "
            "positive number up to 4096"
        )
    digits = (number + 3) // 4
    return secrets.token_hex(digits)[:digits].encode()


@command("ACL USERS", "", ADMIN, "List the names of all users.", group="server")
def acl_users(session: Session) -> Reply:
    return [user.name for user in session.instance.users.all()]


@command("ACL LIST", "", ADMIN, "List all users with their rules.", group="server")
def acl_list(session: Session) -> Reply:
    return [line_of(user) for user in session.instance.users.all()]


@command("ACL GETUSER", "username", ADMIN, "Return what a user may do.", group="server")
def acl_getuser(session: Session, name: bytes) -> Reply:
    user = session.instance.users.get(name)
    if user is None:
        return None
    rules = user.rules
    return {
        b"flags": frozenset(rules.flags()),
        b"passwords": [password.encode() for password in rules.passwords],
        b"commands": rules.describe_commands(),
        b"keys": rules.describe_keys(),
        b"channels": rules.describe_channels(),
        b"selectors": [],
    }


@command(
    "ACL SETUSER",
    "username [rule ...]",
    ADMIN,
    "Make a user, or change what one may do: all these rules or none.",
    group="server",
)
def acl_setuser(session: Session, name: bytes, *rules: bytes) -> Reply:
    if re.search(rb"[\s\0]", name):
        raise CommandError("ERR Usernames can't contain spaces or null characters")
    try:
        user = session.instance.users.change(name, rules)
    except BadRule as bad:
        raise CommandError(f"ERR {bad}") from None
    session.instance.user_changed(user, session)
    return OK


@command(
    "ACL DELUSER",
    "username [username ...]",
    ADMIN,
    "Delete users and end their connections; return how many there were.",
    group="server",
)
def acl_deluser(session: Session, *names: bytes) -> Reply:
    if DEFAULT in names:
        raise CommandError("ERR The 'default' user cannot be removed")
    deleted = [user for name in names if (user := session.instance.users.delete(name))]
    session.instance.end_sessions_of(deleted, session)
    return len(deleted)


@command(
    "ACL DRYRUN",
    "username command [argument ...]",
    ADMIN,
    "Tell whether a user may make a request, without making it.",
    group="server",
)
def acl_dryrun(session: Session, name: bytes, *request: bytes) -> Reply:
    user = session.instance.users.get(name)
    if user is None:
        raise CommandError(f"ERR User '{_shown(name)}' not found")
    try:
        row, arguments = find(list(request))
    except CommandError as error:
        if error.text.startswith("ERR wrong number"):
            raise
        raise CommandError(f"ERR Command '{_shown(request[0])}' not found") from None
    denial = denial_of(user.rules, row, arguments)
    return OK if denial is None else explain(denial, name, names_it=True)


@command(
    "ACL LOG",
    "[count | RESET]",
    ADMIN,
    "List what was refused lately, to whom and how often; RESET: forget it.",
    group="server",
    open_ended=True,
)
def acl_log(session: Session, *count: bytes) -> Reply:
    denials = session.instance.denials
    if len(count) > 1:
        raise _wrong_number("LOG")
    if count and count[0].upper() == b"RESET":
        denials.reset()
        return OK
    most = max(0, integer(count[0])) if count else 10
    return [
        {
            b"count": entry.count,
            b"reason": entry.denial.reason.value,
            b"context": entry.context,
            b"object": entry.denial.object,
            b"username": entry.user,
            b"age-seconds": round(age, 3),
            b"client-info": entry.client,
            b"entry-id": entry.id,
            b"timestamp-created": int(entry.created * 1000),
            b"timestamp-last-updated": int(entry.updated * 1000),
        }
        for entry, age in denials.entries(most)
    ]


def _file(session: Session) -> Path:
    path = session.instance.config.acl_file
    if path is None:
        raise CommandError(NO_FILE)
    return path


@command("ACL SAVE", "", ADMIN, "Write all users to --acl-file.", group="server")
def acl_save(session: Session) -> Reply:
    path = _file(session)
    try:
        session.instance.users.save(path)
    except OSError as error:
        log.error("cannot write the users to %s: %s", path, error.strerror or error)
        raise CommandError(NOT_SAVED) from None
    return OK


@command(
    "ACL LOAD",
    "",
    ADMIN,
    "Read all users from --acl-file; connections of those that have changed end.",
    group="server",
)
def acl_load(session: Session) -> Reply:
    users = session.instance.users
    try:
        touched = users.load(_file(session))
    except BadUsersFile as bad:
        raise CommandError(f"ERR {' '.join([*bad.reasons, NOTHING_CHANGED])}") from None
    gone: list[User] = [user for user in touched if user is not users.default]
    session.instance.end_sessions_of(gone, session)
    session.instance.user_changed(users.default, session)
    return OK
