"""The Haus dialect: text lines in, one JSON object per line out, all-or-nothing transactions.

    PUT a 1        {"status": "Ok"}
    GET a          {"status": "Ok", "result": "1"}
    START          {"status": "Ok"}
    COMMIT         {"status": "Ok"}

Commands in any case; keys hold no spaces; spaces count only inside PUT's value. What is PUT
and DELeted between START and COMMIT is seen by this session at once, by all others in one step.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable, Iterable
from typing import Final

from kvdb.acl.users import DEFAULT
from kvdb.commands.pending_writes import TransactionEnded
from kvdb.commands.refusals import tell_refusal
from kvdb.commands.session import LONG_LINE, Session, TakesLong
from kvdb.commands.table import Named, needs_nothing
from kvdb.errors import TLS_HANDSHAKE, CommandError, NotOurProtocol
from kvdb.protocols import Instead, RequestLoop
from kvdb.resp.buffer import LineTooLong
from kvdb.resp.limits import MAX_LINE, STRANGERS_LINE
from kvdb.store.entry import Key, key_in

log = logging.getLogger(__name__)

_HTTP_REQUEST = re.compile(rb"[A-Za-z]+ (?:/|\*|https?:)\S* HTTP/1\.[01]\s*\Z")


_Needs = Callable[["Haus"], Iterable[list[bytes]]]
_NEEDS: Final[dict[bytes, _Needs]] = {
    b"PUT": lambda haus: [[b"SET", haus.key, b""]],
    b"GET": lambda haus: [[b"GET", haus.key]],
    b"DEL": lambda haus: [[b"DEL", haus.key]],
    b"DELETE": lambda haus: [[b"DEL", haus.key]],
    b"START": lambda haus: [[b"MULTI"]],
    b"COMMIT": lambda haus: [
        [b"EXEC"], *(haus.session.writes.requests() if haus.session.writes else ()),
    ],
    b"ROLLBACK": lambda haus: [[b"DISCARD"]],
    b"AUTH": needs_nothing,
    b"QUIT": needs_nothing,
}  # fmt: skip
"""The commands there are, and what each comes down to for rules about users."""

_OPERATIONS: Final = {
    name: Named(name.decode().lower(), needs, is_step=name not in (b"AUTH", b"QUIT"))
    for name, needs in _NEEDS.items()
}


class HausError(Exception):
    """A request that is refused; the text becomes `mesg`."""


class Haus(RequestLoop):
    """One client's conversation on the Haus port."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        session.protocol = "haus"
        self._store = session.store
        session.db = session.instance.config.haus_db

    def _answer_next(self) -> bytes | None:
        if self._buffer.first_byte() == TLS_HANDSHAKE:
            raise NotOurProtocol("a TLS handshake on the Haus port")
        try:
            longest_value = self.session.instance.config.max_value_bytes
            longest = 2 * longest_value + MAX_LINE if self.session.authenticated else STRANGERS_LINE
            line = self._buffer.take_line(longest)
        except LineTooLong:
            self.closing = True
            return _line({"status": "Error", "mesg": "The line is too long!"})
        if line is None:
            return None
        if _HTTP_REQUEST.match(line):
            raise NotOurProtocol("an HTTP request on the Haus port")
        if not line.strip():
            return b""
        self._last = line
        return self._answer_last()

    def _answer_last(self) -> bytes:
        line = self._last
        self.session.take_leisure(len(line) > LONG_LINE)
        try:
            return _line({"status": "Ok"} | self._answer(line))
        except TakesLong:
            raise
        except (HausError, TransactionEnded) as error:
            tell_refusal(self.session, str(error))
            return _line({"status": "Error", "mesg": str(error)})
        except CommandError as error:
            tell_refusal(self.session, error.text)
            text = error.text.removeprefix("ERR ")
            if text.startswith("NOPERM "):
                text = f"Not permitted: {text.removeprefix('NOPERM ')}!"
            return _line({"status": "Error", "mesg": text})
        except Exception:
            log.exception("internal error on the Haus port")
            return _line({"status": "Error", "mesg": "Internal error!"})

    def _instead(self) -> Instead | None:
        line, name = self._last, self.session.last_command
        if name not in ("get", "put", "del", "delete", "commit"):
            return None

        def again() -> bytes:
            self._last = line
            return self._answer_last()

        return Instead(
            lambda reason: _line({"status": "Error", "mesg": f"Not saved: {reason}"}),
            None if name == "commit" else again,
            only_reads=name == "get",
        )

    def _answer(self, line: bytes) -> dict[str, str]:
        """Carry out a line; return what the reply says beside its status."""
        session = self.session
        words = line.strip().split(None, 2)
        name = words[0].upper()
        if not session.authenticated and name not in (b"AUTH", b"QUIT"):
            raise HausError("Authentication required: AUTH password, or AUTH user password")
        if session.instance.loading and name != b"QUIT":
            raise HausError("Loading the data; try again!")
        if name == b"AUTH" and len(words) > 1:
            words = line.strip().split(None, 1)  # it may hold spaces
        operation = _OPERATIONS.get(name)
        if operation is None:
            raise HausError("Unknown command!")
        if name == b"GET":
            session.take_leisure_for(key_in(session.db, words[-1]))
        answer: dict[str, str] = session.perform(
            operation, Haus._carry_out, self, (name, words[1:]), self
        )
        return answer

    def _carry_out(self, name: bytes, words: list[bytes]) -> dict[str, str]:
        """Carry out a command; return what the reply says beside its status."""
        match name, *words:
            case b"PUT", key, value:
                self._put(key_in(self.session.db, key), value)
            case b"GET", key:
                return self._get(key_in(self.session.db, key))
            case ((b"DEL" | b"DELETE"), key):
                if not self._delete(key_in(self.session.db, key)):
                    return {"mesg": "Key not found!"}
            case [b"START"]:
                if self.session.writes is not None:
                    raise HausError("A transaction is open already!")
                self.session.start_writes()
            case [(b"COMMIT" | b"ROLLBACK")]:
                self._end_transaction(commit=name == b"COMMIT")
            case b"AUTH", credentials:
                self._log_in(credentials)
            case [b"QUIT"]:
                self.closing = True
            case _:
                raise HausError("Wrong number of arguments!")
        return {}

    @property
    def key(self) -> bytes:
        """The key that the request under way names, if it names one."""
        words: list[bytes] = self._last.strip().split(None, 2)
        return words[1] if len(words) > 1 else b""

    def _log_in(self, credentials: bytes) -> None:
        """Take `password`, which may hold spaces, or `user password` where there is such a user."""
        instance = self.session.instance
        name, space, password = credentials.partition(b" ")
        if not space or instance.users.get(name) is None:
            name, password = DEFAULT, credentials
        if not instance.log_in(self.session, password, name):
            raise HausError("Wrong password!")

    def _put(self, key: Key, value: bytes) -> None:
        limit = self.session.instance.config.max_value_bytes
        if len(value) > limit:
            raise HausError(f"The value is longer than {limit} bytes (--max-value-mb)!")
        if self.session.writes is None:
            self._store.set(key, value)
        else:
            self.session.writes.put(key, value)

    def _get(self, key: Key) -> dict[str, str]:
        writes = self.session.writes
        value = self._store.get(key) if writes is None else writes.get(key)
        if value is None:
            raise HausError("Key not found!")
        try:
            return {"result": value.decode()}
        except UnicodeDecodeError:
            return {"result": base64.b64encode(value).decode(), "encoding": "base64"}

    def _delete(self, key: Key) -> bool:
        if self.session.writes is None:
            return bool(self._store.delete(key))
        return self.session.writes.delete(key)

    def _end_transaction(self, commit: bool) -> None:
        writes = self.session.end_writes()
        if writes is None:
            raise HausError("No transaction is open!")
        try:
            if commit:
                writes.commit()
        finally:
            writes.release()


def _line(reply: dict[str, str]) -> bytes:
    return json.dumps(reply, ensure_ascii=False).encode() + b"\n"
