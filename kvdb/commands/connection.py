"""Commands about the connection itself."""

from __future__ import annotations

from typing import Final

from kvdb import errors
from kvdb.commands.arguments import database, integer, parse_integer
from kvdb.commands.clients import describe
from kvdb.commands.session import Session
from kvdb.commands.table import (
    ADMIN,
    ANYONE,
    AT_ONCE,
    NONE,
    NOT_QUEUED,
    REDIS_VERSION,
    command,
    container,
)
from kvdb.errors import CommandError
from kvdb.replies import NO_REPLY, OK, PONG, Reply, SimpleString, Verbatim


@command("PING", "[message]", NONE, "Answer PONG, or the message.", group="connection")
def ping(session: Session, *message: bytes) -> Reply:
    if session.only_listens:  # its client expects messages, and this looks like one
        return [b"pong", message[0] if message else b""]
    return message[0] if message else PONG


@command("ECHO", "message", NONE, "Return the message.", group="connection")
def echo(session: Session, message: bytes) -> Reply:
    return message


def _log_in(session: Session, user: bytes, password: bytes, through: bytes = b"AUTH") -> None:
    if not session.instance.log_in(session, password, user, through):
        raise CommandError(errors.WRONG_PASSWORD)


@command("AUTH", "[username] password", ANYONE, "Log in.", group="connection", open_ended=True)
def auth(session: Session, *user_and_password: bytes) -> Reply:
    *user, password = user_and_password
    if len(user) > 1:
        raise CommandError(errors.SYNTAX)
    if not user and session.instance.users.default.rules.nopass:
        raise CommandError(errors.NO_PASSWORD_SET)
    _log_in(session, user[0] if user else b"default", password)
    return OK


@command(
    "HELLO",
    "[protover [AUTH username password] [SETNAME clientname]]",
    ANYONE,
    "Choose RESP 2 or 3, log in, give the connection a name.",
    group="connection",
)
def hello(session: Session, *arguments: bytes) -> Reply:
    version = session.version
    if arguments:
        number = parse_integer(arguments[0])
        if number is None:
            raise CommandError("ERR Protocol version is not an integer or out of range")
        if number not in (2, 3):
            raise CommandError(errors.UNSUPPORTED_PROTOCOL)
        version = number
    name = credentials = None
    words = list(arguments[1:])
    while words:
        word = words.pop(0)
        option = word.upper()
        if option == b"AUTH" and len(words) >= 2:
            credentials = words.pop(0), words.pop(0)
        elif option == b"SETNAME" and words:
            name = _client_name(words.pop(0))
        else:
            shown = word[:128].decode("utf-8", "surrogateescape")
            raise CommandError(f"ERR Syntax error in HELLO option '{shown}'")
    if credentials:  # only now: a request that is refused changes nothing
        _log_in(session, *credentials, through=b"HELLO")
    if not session.authenticated:
        raise CommandError(errors.HELLO_NOT_AUTHENTICATED)
    session.version = version
    if name is not None:
        session.name = name
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION.encode(),
        b"proto": version,
        b"id": session.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


@command("SELECT", "index", NONE, "Work in another database (0 to 15).", group="connection")
def select(session: Session, index: bytes) -> Reply:
    session.db = database(index)
    return OK


@command("QUIT", "", ANYONE | AT_ONCE, "Close the connection.", group="connection", open_ended=True)
def quit_(session: Session, *ignored: bytes) -> Reply:
    session.closing = True
    return OK


@command(
    "RESET",
    "",
    ANYONE | AT_ONCE,
    "Put the connection back into the state of a new one.",
    group="connection",
)
def reset(session: Session) -> Reply:
    session.reset()
    return SimpleString(b"RESET")


# --- CLIENT -------------------------------------------------------------------------------

container("CLIENT", "Look at connections and name, change or end them.", group="connection")


def _is_plain(text: bytes) -> bool:
    """Tell whether a name can stand in a line of CLIENT LIST."""
    return all(33 <= byte <= 126 for byte in text)


LONGEST_NAME: Final = 1024
"""Bytes of a client's name, or its library's: CLIENT LIST and several logs repeat it."""


def _refuse_long_name(name: bytes) -> None:
    if len(name) > LONGEST_NAME:
        raise CommandError(f"ERR a client's name may have {LONGEST_NAME} bytes")


def _client_name(name: bytes) -> bytes:
    _refuse_long_name(name)
    if not _is_plain(name):
        raise CommandError(
            "ERR Client names cannot contain spaces, newlines or special characters."
        )
    return name


@command("CLIENT ID", "", NONE, "Return the number of this connection.", group="connection")
def client_id(session: Session) -> Reply:
    return session.id


@command("CLIENT GETNAME", "", NONE, "Return the name of this connection.", group="connection")
def client_getname(session: Session) -> Reply:
    return session.name or None


@command("CLIENT SETNAME", "connection-name", NONE, "Name this connection.", group="connection")
def client_setname(session: Session, name: bytes) -> Reply:
    session.name = _client_name(name)
    return OK


@command(
    "CLIENT SETINFO",
    "LIB-NAME libname | LIB-VER libver",
    NONE,
    "Tell which client library is used.",
    group="connection",
)
def client_setinfo(session: Session, attribute: bytes, value: bytes) -> Reply:
    option, shown = attribute.upper(), attribute[:128].decode("utf-8", "surrogateescape")
    if option not in (b"LIB-NAME", b"LIB-VER"):
        raise CommandError(f"ERR Unrecognized option '{shown}'")
    _refuse_long_name(value)
    if not _is_plain(value):
        raise CommandError(f"ERR {shown} cannot contain spaces, newlines or special characters.")
    if option == b"LIB-NAME":
        session.library_name = value
    else:
        session.library_version = value
    return OK


def _open_sessions(session: Session) -> list[Session]:
    """Return all sessions but those that have been killed and are about to end."""
    return [each for each in session.instance.sessions() if not each.closing]


@command("CLIENT INFO", "", NONE, "Describe this connection.", group="connection")
def client_info(session: Session) -> Reply:
    return Verbatim(describe(session) + "\n")


_CLIENT_TYPES = {b"NORMAL", b"MASTER", b"SLAVE", b"REPLICA", b"PUBSUB"}


def _is_of(kind: bytes, session: Session) -> bool:
    """Tell whether a session belongs to a class of clients."""
    if session.is_replica:
        return kind in (b"SLAVE", b"REPLICA")
    return kind == (b"PUBSUB" if session.subscriptions else b"NORMAL")


def _client_type(word: bytes) -> bytes:
    kind = word.upper()
    if kind not in _CLIENT_TYPES:
        raise CommandError(f"ERR Unknown client type '{word.decode('utf-8', 'replace')[:128]}'")
    return kind


@command(
    "CLIENT LIST",
    "[TYPE type] [ID client-id ...]",
    ADMIN,
    "Describe all connections, one per line.",
    group="connection",
)
def client_list(session: Session, *options: bytes) -> Reply:
    sessions = _open_sessions(session)
    if options:
        option, words = options[0].upper(), options[1:]
        if option == b"TYPE" and len(words) == 1:
            kind = _client_type(words[0])
            sessions = [each for each in sessions if _is_of(kind, each)]
        elif option == b"ID" and words:
            wanted = {integer(word, "ERR Invalid client ID") for word in words}
            sessions = [each for each in sessions if each.id in wanted]
        else:
            raise CommandError(errors.SYNTAX)
    return Verbatim("".join(describe(each) + "\n" for each in sessions))


@command(
    "CLIENT KILL",
    "ip:port | option value [option value ...]",
    ADMIN,
    "End connections: by address, or by ID (of several), TYPE, USER, ADDR, LADDR, SKIPME, MAXAGE.",
    group="connection",
)
def client_kill(session: Session, *arguments: bytes) -> Reply:
    if len(arguments) == 1:
        address = arguments[0].decode("utf-8", "replace")
        chosen = [each for each in _open_sessions(session) if each.address == address]
        if not chosen:
            raise CommandError("ERR No such client")
        _end(session, chosen)
        return OK
    skip_me = True
    chosen = _open_sessions(session)
    words = list(arguments)
    while words:
        if len(words) == 1:
            raise CommandError(errors.SYNTAX)
        option, value = words.pop(0), words.pop(0)
        text = value.decode("utf-8", "replace")
        match option.upper():
            case b"ID":
                numbers = {_client_number(value)}
                while words and words[0].isdigit():  # several, as in Valkey
                    numbers.add(_client_number(words.pop(0)))
                chosen = [each for each in chosen if each.id in numbers]
            case b"TYPE":
                kind = _client_type(value)
                chosen = [each for each in chosen if _is_of(kind, each)]
            case b"USER":
                if session.instance.users.get(value) is None:
                    raise CommandError(f"ERR No such user '{text[:128]}'")
                chosen = [each for each in chosen if each.user.name == value]
            case b"ADDR":
                chosen = [each for each in chosen if each.address == text]
            case b"LADDR":
                chosen = [each for each in chosen if each.local_address == text]
            case b"MAXAGE":
                age = parse_integer(value)
                if age is None:
                    raise CommandError("ERR maxage is not an integer or out of range")
                if age < 1:
                    raise CommandError("ERR maxage should be greater than 0")
                oldest = session.instance.monotonic() - age
                chosen = [each for each in chosen if each.started_at <= oldest]
            case b"SKIPME" if value.upper() in (b"YES", b"NO"):
                skip_me = value.upper() == b"YES"
            case _:
                raise CommandError(errors.SYNTAX)
    if skip_me:
        chosen = [each for each in chosen if each is not session]
    _end(session, chosen)
    return len(chosen)


def _client_number(word: bytes) -> int:
    number = integer(word, "ERR client-id should be greater than 0")
    if number < 1:
        raise CommandError("ERR client-id should be greater than 0")
    return number


def _end(session: Session, chosen: list[Session]) -> None:
    for each in chosen:
        each.closing = True  # after the reply; another one carries out nothing more
        if each is not session:
            each.close()


@command(
    "CLIENT REPLY",
    "ON | OFF | SKIP",
    NOT_QUEUED,
    "Have replies sent, not sent, or the next one left out.",
    group="connection",
)
def client_reply(session: Session, mode: bytes) -> Reply:
    match mode.upper():
        case b"ON":
            session.silent = session.skipping = False
            return OK
        case b"OFF":
            session.silent = True
        case b"SKIP":
            session.skip_next = True
        case _:
            raise CommandError(errors.SYNTAX)
    return NO_REPLY


def _on_or_off(word: bytes) -> bool:
    if word.upper() not in (b"ON", b"OFF"):
        raise CommandError(errors.SYNTAX)
    return word.upper() == b"ON"


@command(
    "CLIENT NO-EVICT",
    "ON | OFF",
    ADMIN,
    "Neither end this connection nor let it wait when clients hold too much.",
    group="connection",
)
def client_no_evict(session: Session, mode: bytes) -> Reply:
    session.no_evict = _on_or_off(mode)
    return OK


@command(
    "CLIENT NO-TOUCH",
    "ON | OFF",
    NONE,
    "Have this connection's commands leave the order of use alone.",
    group="connection",
)
def client_no_touch(session: Session, mode: bytes) -> Reply:
    session.no_touch = _on_or_off(mode)
    return OK
