"""What the log says of requests that were refused: a framework seldom shows its user the error."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvdb.commands.session import Session

log = logging.getLogger(__name__)

_UNKNOWN: Final = re.compile(r"ERR (unknown \w+) ('[A-Za-z._|-]{1,30}'(?=[,.]))?")


def tell_refusal(session: Session, text: str) -> None:
    """Log what a client was told, at level debug; without arguments, which may be secret."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("client %s: refused: %s", session.address, text.partition(", with args")[0])


def log_refusal(session: Session, code: str, text: str) -> None:
    """Log an error, once a minute for its kind, if its client cannot do something here.

    That is a command that there is not, or a write without room. At level debug every refusal.
    """
    tell_refusal(session, text)
    if code == "OOM":
        kind = "a write was refused, because the budget is used up"
    elif (found := _UNKNOWN.match(text)) and not text.endswith("Try CLIENT HELP."):
        # (Libraries try subcommands of CLIENT, and go on without them.)
        kind = f"{found[1]} {found[2]}" if found[2] else "unknown command"
    else:
        return
    library = session.library_name + b" " + session.library_version
    known = b", ".join(filter(None, (session.name, library.strip()))).decode("ascii", "replace")
    client = f"client {session.address} ({known})" if known else f"client {session.address}"
    session.instance.sparse_log.warn(log, f"refused {kind}", f"{client}: {kind}")
