"""The challenge's dialect: one JSON object per line in, one per line out.

    {"command": "SET", "args": {"key": "foo", "value": "bar", "ttl": 60}}   {"status": "OK"}
    {"command": "GET", "args": {"key": "foo"}}                {"status": "OK", "result": "bar"}
    {"command": "MGET", "args": ["foo", "x"]}         {"status": "OK", "result": ["bar", null]}

START, COMMIT and ROLLBACK make an interactive transaction of SET, GET and DELETE. Named
arguments are for the commands in `_NAMED`; every command takes a list. A value that is
not UTF-8 comes back in base64 and says so (`"encoding": "base64"`); SET takes it so, too.
What subscribers get is in `json_pushes`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from kvdb import errors
from kvdb.commands.arguments import INT64_MAX, INT64_MIN
from kvdb.commands.pending_writes import TransactionEnded
from kvdb.commands.session import LONG_LINE, Session
from kvdb.commands.table import TABLE, Named
from kvdb.errors import CommandError, ValueTooLarge
from kvdb.protocols.json_pushes import encode_push
from kvdb.replies import NIL_ARRAY, NO_REPLY, OK, QUEUED, Pushes, Reply
from kvdb.store.entry import key_in

Arguments = dict[str, Any]


class BadRequest(Exception):
    """The line is no request; the text says what is wrong with it."""


def answer(session: Session, line: bytes) -> Iterator[bytes]:
    """Carry out one line; return the line that answers it (nothing, if no reply is wanted).

    It comes in pieces: those of a list are made when it is their turn.
    """
    session.take_leisure(len(line) > LONG_LINE)
    try:
        name, arguments = _parse(line)
        if isinstance(arguments, dict) or session.writes is not None:
            if not isinstance(arguments, dict):
                raise BadRequest("between START and COMMIT the arguments must be named")
            reply, result = _answer_named(session, name, arguments)
        else:
            request = [name.encode(), *map(_encode_argument, arguments)]
            reply = result = _execute(session, request)
    except BadRequest as error:
        reply = result = session.refuse(CommandError(f"ERR {error}"))
    if reply is NO_REPLY:
        return iter(())
    if isinstance(reply, CommandError):
        return iter([_line({"status": "ERROR", "message": _message(reply)})])
    if type(reply) is Pushes:
        version = session.version
        return (each if type(each) is bytes else encode_push(each, version) for each in reply)
    if reply is QUEUED:
        result = reply
    if type(result) is list:
        return _list_in_pieces(result)
    response: dict[str, Any] = {"status": "OK"}
    if result is not OK:
        response["result"], encoded = _to_json(result)
        if encoded:
            response["encoding"] = "base64"
    return iter([_line(response)])


def _list_in_pieces(result: list[Reply]) -> Iterator[bytes]:
    """Yield the response with a list as its result, an element at a time."""
    yield b'{"status": "OK", "result": '
    yield from _pieces(result)
    yield b"}\n"


def _pieces(result: Reply) -> Iterator[bytes]:
    if type(result) is not list:
        yield json.dumps(_nested(result), ensure_ascii=False).encode()
        return
    before = b"["
    for each in result:
        yield before
        yield from _pieces(each)
        before = b", "
    yield b"]" if result else b"[]"


def _execute(session: Session, request: list[bytes]) -> Reply:
    """As Session.execute(), but within the limit that other dialects hold while reading."""
    if len(request) == 2 and request[0].upper() == b"GET":
        session.take_leisure_for(key_in(session.db, request[1]))
    limit = session.instance.config.max_value_bytes
    if any(len(argument) > limit for argument in request):
        return session.refuse(ValueTooLarge(limit))
    return session.execute(request)


def error_line(message: str) -> bytes:
    """Return the line that reports an error which is not about one request."""
    return _line({"status": "ERROR", "message": message})


def _line(response: dict[str, Any]) -> bytes:
    return json.dumps(response, ensure_ascii=False).encode() + b"\n"


def _message(error: CommandError) -> str:
    if error.text == errors.NOT_AN_INTEGER:
        return "Value is not an integer"  # the challenge's own words
    # What a client sent may be quoted in it, and need not be UTF-8.
    return error.text.removeprefix("ERR ").encode("utf-8", "replace").decode()


# --- requests -----------------------------------------------------------------------------


def _parse(line: bytes) -> tuple[str, Arguments | list[Any]]:
    try:
        request = json.loads(
            line, parse_constant=_refuse_constant, object_pairs_hook=_object_with_unique_names
        )
    except (ValueError, RecursionError):
        raise BadRequest("not a JSON object on one line") from None
    if not isinstance(request, dict):
        raise BadRequest("not a JSON object on one line")
    name, arguments = request.get("command"), request.get("args")
    if not isinstance(name, str) or not name or not name.isascii():
        raise BadRequest('"command" must be the name of a command')
    if arguments is None:
        arguments = {} if name.upper() in _NAMED or name.upper() in _TRANSACTIONS else []
    if not isinstance(arguments, dict | list):
        raise BadRequest('"args" must be an object or a list')
    return name, arguments


def _object_with_unique_names(members: list[tuple[str, Any]]) -> dict[str, Any]:
    names_and_values = dict(members)
    if len(names_and_values) < len(members):
        raise ValueError("a name stands there twice: which of them is meant?")
    return names_and_values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _encode_argument(value: object) -> bytes:
    """Return a string's UTF-8 or an integer's digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value).encode()
    if not isinstance(value, str):
        raise BadRequest("arguments must be strings or integers")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadRequest("a string is not valid Unicode (a lone surrogate)") from None


class _Named:
    """Takes arguments by their names; refuses what is missing and what is too much."""

    def __init__(self, command: str, arguments: Arguments) -> None:
        self._command, self._left = command, dict(arguments)

    def take(self, name: str) -> bytes:
        if name not in self._left:
            raise BadRequest(f'{self._command} needs "{name}"')
        return _encode_argument(self._left.pop(name))

    def take_ttl(self) -> bytes:
        """Return a time to live in milliseconds."""
        seconds = self._left.pop("ttl", None)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise BadRequest(f'{self._command} needs "ttl", a number of seconds')
        if not INT64_MIN <= seconds * 1000 <= INT64_MAX:
            raise BadRequest('"ttl" is out of range')
        return b"%d" % round(seconds * 1000)

    def take_value(self, name: str = "value") -> bytes:
        value = self.take(name)
        encoding = self._left.pop("encoding", None)
        if encoding is None:
            return value
        if encoding != "base64":
            raise BadRequest('"encoding" can only be "base64"')
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise BadRequest(f'"{name}" is not base64') from None

    def __contains__(self, name: str) -> bool:
        return self._left.get(name) is not None

    def finish(self) -> None:
        if "ttl" not in self:
            self._left.pop("ttl", None)  # null: none
        if self._left:
            raise BadRequest(f'{self._command} does not take "{min(self._left)[:128]}"')


def _set(given: _Named) -> list[bytes]:
    request = [b"SET", given.take("key"), given.take_value()]
    return [*request, b"PX", given.take_ttl()] if "ttl" in given else request


_Builder = Callable[[_Named], list[bytes]]


def _key_only(name: bytes) -> _Builder:
    return lambda given: [name, given.take("key")]


def _subscription(command: bytes, name: str, may_lack: bool = False) -> _Builder:
    """Return what builds the request; one that `may_lack` its name is about all of them."""
    return lambda given: (
        [command] if may_lack and name not in given else [command, given.take(name)]
    )


def _same(reply: Reply) -> Reply:
    return reply


def _nothing(reply: Reply) -> Reply:
    return OK


def _counter(reply: Reply) -> Reply:
    return b"%d" % reply


def _ttl(reply: Reply) -> Reply:
    return None if reply < 0 else reply


_NAMED: Final[dict[str, tuple[_Builder, Callable[[Reply], Reply]]]] = {
    "SET": (_set, _nothing),
    "GET": (_key_only(b"GET"), _same),
    "DELETE": (_key_only(b"DEL"), _nothing),
    "INCR": (_key_only(b"INCR"), _counter),
    "DECR": (_key_only(b"DECR"), _counter),
    "EXPIRE": (lambda given: [b"PEXPIRE", given.take("key"), given.take_ttl()], _nothing),
    "TTL": (_key_only(b"TTL"), _ttl),
    "PING": (lambda given: [b"PING"], _same),
    "SUBSCRIBE": (_subscription(b"SUBSCRIBE", "channel"), _same),
    "UNSUBSCRIBE": (_subscription(b"UNSUBSCRIBE", "channel", may_lack=True), _same),
    "PSUBSCRIBE": (_subscription(b"PSUBSCRIBE", "pattern"), _same),
    "PUNSUBSCRIBE": (_subscription(b"PUNSUBSCRIBE", "pattern", may_lack=True), _same),
    "PUBLISH": (
        lambda given: [b"PUBLISH", given.take("channel"), given.take_value("message")],
        _same,
    ),
}
"""The challenge's commands: how their named arguments become a request, and a reply a result."""


def _answer_named(session: Session, name: str, arguments: Arguments) -> tuple[Reply, Reply]:
    """Return the reply, and the result that the challenge wants to see for it."""
    if name.upper() in _TRANSACTIONS or session.writes is not None:
        reply = _answer_in_transaction(session, name.upper(), arguments)
        return reply, reply
    if name.upper() not in _NAMED:
        if arguments and name.upper().encode() in TABLE:
            raise BadRequest(f'the "args" of {name[:128]} must be a list')
        reply = session.execute([name.encode()])
        return reply, reply
    build, result_of = _NAMED[name.upper()]
    given = _Named(name.upper(), arguments)
    request = build(given)
    given.finish()
    reply = _execute(session, request)
    if isinstance(reply, CommandError) or reply is NO_REPLY or reply is QUEUED:
        return reply, None
    return reply, result_of(reply)


_TRANSACTIONS: Final = ("START", "COMMIT", "ROLLBACK")


def _with_key(name: bytes, *more: bytes) -> Callable[[Arguments], list[list[bytes]]]:
    def needs(arguments: Arguments) -> list[list[bytes]]:
        key = _encode_argument(arguments["key"]) if "key" in arguments else b""
        return [[name, key, *more]]

    return needs


_IN_TRANSACTION: Final = {
    "START": Named("start", lambda arguments: [[b"MULTI"]]),
    "COMMIT": Named("commit", lambda writes: [[b"EXEC"], *writes.requests()]),
    "ROLLBACK": Named("rollback", lambda arguments: [[b"DISCARD"]]),
    "SET": Named("set", _with_key(b"SET", b"")),
    "GET": Named("get", _with_key(b"GET")),
    "DELETE": Named("delete", _with_key(b"DEL")),
}
"""What is possible there, and what it comes down to for rules about users."""


def _answer_in_transaction(session: Session, name: str, arguments: Arguments) -> Reply:
    """Carry out START, COMMIT and ROLLBACK, and SET, GET and DELETE between them.

    Own writes are seen at once, by others all at once at COMMIT. A connection that ends
    rolls back.
    """
    if not session.authenticated:
        return session.refuse(CommandError(errors.NOT_AUTHENTICATED))
    if session.instance.loading:
        return session.refuse(CommandError(errors.LOADING))
    if name != "START" and session.writes is None:
        raise BadRequest("no transaction is open")
    operation = _IN_TRANSACTION.get(name)
    if operation is None:
        raise BadRequest(f"{name[:128]} is not possible between START and COMMIT")
    try:
        given = (name, _Named(name, arguments))
        request = session.writes if name == "COMMIT" else arguments
        return session.perform(operation, _carry_out, session, given, request)
    except TransactionEnded as error:
        raise BadRequest(str(error)) from None
    except CommandError as error:
        return session.refuse(error)


def _carry_out(session: Session, name: str, given: _Named) -> Reply:
    writes = session.writes
    if writes is None or name == "START":
        given.finish()
        if session.transaction is not None:
            raise BadRequest("START is not possible between MULTI and EXEC")
        if writes is not None:
            raise BadRequest("a transaction is open already")
        session.start_writes()
        return OK
    if name in ("COMMIT", "ROLLBACK"):
        given.finish()
        session.end_writes()
        try:
            if name == "COMMIT":
                writes.commit()
        finally:
            writes.release()
        return OK
    key = key_in(session.db, given.take("key"))
    value = given.take_value() if name == "SET" else b""
    given.finish()
    if name == "GET":
        return writes.get(key)
    if name == "DELETE":
        writes.delete(key)
        return OK
    limit = session.instance.config.max_value_bytes
    if len(value) > limit:
        raise ValueTooLarge(limit)
    writes.put(key, value)
    return OK


# --- results ------------------------------------------------------------------------------


def _to_json(result: Reply) -> tuple[Any, bool]:
    """Return what JSON can say of a result, and whether it is in base64."""
    match result:
        case bytes():
            try:
                return result.decode(), False
            except UnicodeDecodeError:
                return base64.b64encode(result).decode(), True
        case _ if result is NIL_ARRAY:
            return None, False
        case list() | tuple():
            return [_nested(each) for each in result], False
        case frozenset():
            return [_nested(each) for each in sorted(result)], False
        case dict():
            return {_to_json(key)[0]: _nested(value) for key, value in result.items()}, False
        case _:
            return result, False


def _nested(result: Reply) -> Any:
    """As _to_json(); base64 and errors within a list are marked by an object around them."""
    if isinstance(result, CommandError):
        return {"status": "ERROR", "message": _message(result)}
    value, encoded = _to_json(result)
    return {"value": value, "encoding": "base64"} if encoded else value
