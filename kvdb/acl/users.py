"""The users of a server, and the file that they are kept in."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kvdb.acl.rules import UNKNOWN, BadRule, Commands, Rules

DEFAULT: Final = b"default"
"""The user that a connection is until it says otherwise. It is always there."""


class BadUsersFile(Exception):
    """The file cannot be used; the texts, a sentence each, say why and where."""

    @property
    def reasons(self) -> list[str]:
        return list(self.args)


class User:
    """A user. Connections refer to it; what it may do is replaced whole, never changed."""

    __slots__ = ("name", "rules")

    def __init__(self, name: bytes, rules: Rules) -> None:
        self.name, self.rules = name, rules


class Users:
    """All users by name. `_lock` guards the dict and each change from rules to new ones."""

    def __init__(self, commands: Commands) -> None:
        """`commands` is asked whenever rules change; it may be filled later."""
        self._commands = commands
        self._lock = threading.Lock()
        self.default = User(DEFAULT, self.everything())
        self._users = {DEFAULT: self.default}
        self._default_at_start = self.default.rules

    def everything(self) -> Rules:
        """Return the rules of who may do everything."""
        rules = Rules()
        for rule in (b"on", b"nopass", b"~*", b"&*", b"+@all"):
            rules = rules.changed(rule, self._commands)
        return rules

    def all(self) -> list[User]:
        """Return the users by name."""
        with self._lock:
            return [self._users[name] for name in sorted(self._users)]

    def get(self, name: bytes) -> User | None:
        """Return a user, or None."""
        return self._users.get(name)

    def meant_by(self, name: bytes) -> bytes:
        """Return the name of the user that a client of HTTP or memcached means by a name.

        These always send one. For the default user any will do that no other user has.
        """
        return name if name in self._users else DEFAULT

    def change(self, name: bytes, rules: Iterable[bytes]) -> User:
        """Apply rules to a user, all or none; make the user if there is none. Raises BadRule.

        Its text is the whole of Redis's message.
        """
        with self._lock:
            user = self._users.get(name)
            changed = user.rules if user else Rules()
            for rule in merged(rules):
                try:
                    changed = changed.changed(rule, self._commands)
                except BadRule as bad:
                    shown = rule.decode("utf-8", "surrogateescape")
                    raise BadRule(f"Error in ACL SETUSER modifier '{shown}': {bad}") from None
            if user is None:
                user = self._users[name] = User(name, changed)
            user.rules = changed
            return user

    def set_password(self, password: str | None) -> User:
        """Give the default user this password instead of those it has; None: it needs none."""
        rules = [b"nopass"] if password is None else [b"resetpass", b">" + password.encode()]
        at_start = self.everything()
        for rule in rules:
            at_start = at_start.changed(rule, self._commands)
        self._default_at_start = at_start
        return self.change(DEFAULT, rules)

    def delete(self, name: bytes) -> User | None:
        """Delete a user; return it if it was there. What still refers to it may do nothing."""
        with self._lock:
            user = self._users.pop(name, None)
            if user is not None:
                user.rules = Rules()
            return user

    def authenticate(self, name: bytes, password: bytes) -> User | None:
        """Return the user if the password is right, in a time that does not depend on that."""
        user = self._users.get(name)
        rules = user.rules if user else Rules()
        right = rules.takes(password)
        return user if rules.enabled and (right or rules.nopass) else None

    # --- the file ------------------------------------------------------------------------

    def load(self, path: Path) -> list[User]:
        """Replace all users by those of the file; return those that are gone or not the same.

        Raises BadUsersFile, and nothing has changed then. A default user that the file does not
        name is as it was at the start, with the password that it was given last.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise BadUsersFile(f"{path}: {error.strerror or error}") from None
        read = _parse(path, text, self._commands)
        if DEFAULT not in read:
            read[DEFAULT] = self._default_at_start
        with self._lock:
            touched = []
            for name, user in list(self._users.items()):
                rules = read.get(name)
                if rules is not None and rules.describe() == user.rules.describe():
                    continue
                touched.append(user)
                if rules is None:
                    del self._users[name]
                    user.rules = Rules()
                elif user is self.default:
                    user.rules = rules  # connections keep it
                else:
                    user.rules = Rules()
                    del self._users[name]
            for name, rules in read.items():
                if name not in self._users:
                    self._users[name] = User(name, rules)
            return touched

    def save(self, path: Path) -> None:
        """Write all users to the file, in one step. Raises OSError."""
        text = b"".join(line_of(user) + b"\n" for user in self.all())
        draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            # Only its owner may read what guesses could be tried on, unless it was otherwise.
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise


def line_of(user: User) -> bytes:
    """Return a user as ACL LIST and the file have it."""
    return b"user %b %b" % (user.name, user.rules.describe())


def merged(rules: Iterable[bytes]) -> list[bytes]:
    """Put the words between parentheses together: a selector is one rule. Raises BadRule."""
    found: list[bytes] = []
    selector: list[bytes] = []
    for rule in rules:
        if selector or rule.startswith(b"("):
            selector.append(rule)
            if rule.endswith(b")"):
                found.append(b" ".join(selector))
                selector = []
        else:
            found.append(rule)
    if selector:
        shown = selector[0].decode("utf-8", "surrogateescape")
        raise BadRule(f"Unmatched parenthesis in acl selector starting at '{shown}'.")
    return found


def _parse(path: Path, text: bytes, commands: Commands) -> dict[bytes, Rules]:
    """Return the users of a file. Raises BadUsersFile with all that is wrong with it."""
    users: dict[bytes, Rules] = {}
    problems = []
    for number, line in enumerate(text.split(b"\n"), 1):
        words = line.split()
        if not words:
            continue
        if words[0] != b"user" or len(words) < 2:
            problems.append(
                f"{path}:{number} should start with user keyword followed by the username."
            )
            continue
        name = words[1]
        if name in users:
            shown = name.decode("utf-8", "replace")
            problems.append(f"WARNING: Duplicate user '{shown}' found on line {number}.")
            continue
        try:
            users[name] = _read_rules(path, number, words[2:], commands)
        except BadRule as bad:
            problems.append(str(bad))
    if problems:
        raise BadUsersFile(*problems)
    return users


def _read_rules(path: Path, number: int, words: list[bytes], commands: Commands) -> Rules:
    rules = Rules()
    try:
        words = merged(words)
    except BadRule as bad:
        raise BadRule(f"{path}:{number}: {bad}") from None
    for word in words:
        try:
            rules = rules.changed(word, commands)
        except BadRule as bad:
            if (
                str(bad) == UNKNOWN
            ):  # of anything else, which may be a password, nothing is repeated
                shown = word.decode("utf-8", "replace")
                bad = BadRule(f"Error in applying operation '{shown}': {bad}")
            raise BadRule(f"{path}:{number}: {bad}.") from None
    return rules
