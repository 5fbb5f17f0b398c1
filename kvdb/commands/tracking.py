"""CLIENT TRACKING and what belongs to it: clients that keep copies, and are told of changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvdb import errors
from kvdb.commands.arguments import integer
from kvdb.commands.session import Session
from kvdb.commands.table import NONE, command
from kvdb.errors import CommandError
from kvdb.replies import OK, Reply
from kvdb.tracking import Mode, Tracker

MAX_PREFIXES: Final = 100
"""Each write is compared with all of them, under the store's lock."""

_EVERY_KEY = b""  # the prefix of a client that names none


@command(
    "CLIENT TRACKING",
    "ON [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT]"
    " [NOLOOP] | OFF",
    NONE,
    "Be told when keys change that were read here, or that begin with a prefix.",
    group="connection",
)
def client_tracking(session: Session, switch: bytes, *options: bytes) -> Reply:
    mode, prefixes = _parse(session, options)
    if switch.upper() == b"OFF":
        session.instance.tracking.stop(session)
        return OK
    if switch.upper() != b"ON":
        raise CommandError(errors.SYNTAX)
    tracker, tracking = session.tracker, session.instance.tracking
    _check_mode(mode, prefixes, tracker)
    if len(prefixes) + (len(tracker.prefixes) if tracker else 0) > MAX_PREFIXES:
        raise CommandError(f"ERR a client may name {MAX_PREFIXES} prefixes")
    _check_prefixes(prefixes, tracker.prefixes if tracker else ())
    if mode.broadcast and not prefixes:
        prefixes = [_EVERY_KEY]
    if tracker is None:
        tracking.start(session, mode, prefixes)
    else:
        tracking.change(tracker, mode, prefixes)
    return OK


def _parse(session: Session, options: tuple[bytes, ...]) -> tuple[Mode, list[bytes]]:
    redirect = 0
    prefixes: list[bytes] = []
    given: set[bytes] = set()
    words: Iterator[bytes] = iter(options)
    for word in words:
        option = word.upper()
        value = next(words, None) if option in (b"REDIRECT", b"PREFIX") else None
        if option == b"PREFIX" and value is not None:
            prefixes.append(value)
        elif option == b"REDIRECT" and value is not None:
            if redirect:
                raise CommandError("ERR A client can only redirect to a single other client")
            redirect = integer(value)
            if session.instance.session(redirect) is None:
                raise CommandError("ERR The client ID you want redirect to does not exist")
        elif option in (b"BCAST", b"OPTIN", b"OPTOUT", b"NOLOOP"):
            given.add(option)
        else:
            raise CommandError(errors.SYNTAX)
    flags = (option in given for option in (b"BCAST", b"OPTIN", b"OPTOUT", b"NOLOOP"))
    return Mode(redirect, *flags), prefixes


def _check_mode(mode: Mode, prefixes: list[bytes], tracker: Tracker | None) -> None:
    """Raise CommandError if options do not go together, or with those that hold already."""
    before = tracker.mode if tracker else Mode(broadcast=mode.broadcast)
    if prefixes and not mode.broadcast:
        raise CommandError("ERR PREFIX option requires BCAST mode to be enabled")
    if mode.broadcast != before.broadcast:
        raise CommandError(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, "
            "and then re-enabling it with a different mode."
        )
    if mode.broadcast and (mode.opt_in or mode.opt_out):
        raise CommandError("ERR OPTIN and OPTOUT are not compatible with BCAST")
    if mode.opt_in and mode.opt_out:
        raise CommandError("ERR You can't specify both OPTIN mode and OPTOUT mode")
    if (mode.opt_in and before.opt_out) or (mode.opt_out and before.opt_in):
        raise CommandError(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, "
            "and then re-enabling it with a different mode."
        )


def _check_prefixes(prefixes: list[bytes], existing: tuple[bytes, ...]) -> None:
    """Raise CommandError if two of them would tell of the same key."""
    for place, prefix in enumerate(prefixes):
        for which, others in (
            ("an existing", existing),
            ("another provided", prefixes[place + 1 :]),
        ):
            for other in others:
                if prefix.startswith(other) or other.startswith(prefix):
                    one, two = (each.decode("utf-8", "surrogateescape") for each in (prefix, other))
                    raise CommandError(
                        f"ERR Prefix '{one}' overlaps with {which} prefix '{two}'. "
                        "Prefixes for a single client must not overlap."
                    )


@command(
    "CLIENT CACHING",
    "YES | NO",
    NONE,
    "Say whether what the next request reads is to be tracked (OPTIN, OPTOUT).",
    group="connection",
)
def client_caching(session: Session, answer: bytes) -> Reply:
    tracker = session.tracker
    if tracker is None:
        raise CommandError(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with "
            "OPTIN or OPTOUT mode enabled"
        )
    match answer.upper():
        case b"YES":
            allowed, needed = tracker.mode.opt_in, "OPTIN"
        case b"NO":
            allowed, needed = tracker.mode.opt_out, "OPTOUT"
        case _:
            raise CommandError(errors.SYNTAX)
    if not allowed:
        word = answer.upper().decode()
        raise CommandError(
            f"ERR CLIENT CACHING {word} is only valid when tracking is enabled in {needed} mode."
        )
    tracker.caching = True
    return OK


@command(
    "CLIENT GETREDIR",
    "",
    NONE,
    "Return which client is told instead; 0: this one; -1: tracking is off.",
    group="connection",
)
def client_getredir(session: Session) -> Reply:
    return session.tracker.mode.redirect if session.tracker else -1


@command(
    "CLIENT TRACKINGINFO",
    "",
    NONE,
    "Tell how this connection is told of changes.",
    group="connection",
)
def client_trackinginfo(session: Session) -> Reply:
    tracker = session.tracker
    mode = tracker.mode if tracker else Mode(redirect=-1)
    caching = tracker is not None and tracker.caching
    flags = {
        b"on": tracker is not None,
        b"off": tracker is None,
        b"bcast": mode.broadcast,
        b"optin": mode.opt_in,
        b"caching-yes": mode.opt_in and caching,
        b"optout": mode.opt_out,
        b"caching-no": mode.opt_out and caching,
        b"noloop": mode.no_loop,
        b"broken_redirect": tracker is not None and tracker.is_broken,
    }
    return {
        b"flags": frozenset(flag for flag, holds in flags.items() if holds),
        b"redirect": mode.redirect,
        b"prefixes": list(tracker.prefixes) if tracker else [],
    }
