"""The one place that decides whether a session's user may do something.

Requests of every dialect come here if the user may not do everything: those of the command table
as they are, others as the commands that they come down to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kvdb.acl import Denial, Reason, Rules
from kvdb.commands.access import channels_of, keys_of
from kvdb.commands.clients import describe
from kvdb.commands.table import Command, Named, find
from kvdb.errors import BUSY, READ_ONLY, CommandError

if TYPE_CHECKING:
    from kvdb.commands.session import Session

_IN_THE_END: Final = (
    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC "
    "call. This command is no longer allowed for the following reason: "
)
_REASONS: Final = {
    Reason.COMMAND: "no permission to execute the command or subcommand",
    Reason.KEY: "no permission to touch the specified keys",
    Reason.CHANNEL: "no permission to access one of the channels used as arguments to the command",
}


def denial_of(rules: Rules, row: Command, arguments: list[bytes]) -> Denial | None:
    """Return why a request is refused to whoever has these rules; None if it is not."""
    return rules.denial(
        row, arguments, lambda: keys_of(row, arguments), lambda: channels_of(row, arguments)
    )


def permit(session: Session, row: Command, arguments: list[bytes]) -> None:
    """Return if the session's user may make this request; else note it down. Raises CommandError."""
    denial = denial_of(session.user.rules, row, arguments)
    if denial is not None:
        note_denial(session, denial)
        raise CommandError(f"NOPERM {explain(denial, session.user.name)}")


def permit_again(session: Session, row: Command, arguments: list[bytes]) -> None:
    """As permit(), for a command that was queued when perhaps more was allowed."""
    denial = denial_of(session.user.rules, row, arguments)
    if denial is not None:
        note_denial(session, denial, "multi")
        raise CommandError(_IN_THE_END + _REASONS[denial.reason])


def permit_named(session: Session, operation: Named, request: Any) -> None:
    """As permit(), for a request of a dialect that has no table of commands."""
    if operation.wire_name != "auth":
        refuse_while_busy(session)
    if session.restricted or session.instance.standby is not None:
        for words in operation.needs(request):
            row, arguments = find(words)
            if session.restricted:
                permit(session, row, arguments)
            if row.writes:
                refuse_on_replica(session)


def refuse_on_replica(session: Session) -> None:
    """Raise CommandError if this server follows another one, which alone says what is here."""
    if session.instance.standby is not None and not session.follows:
        raise CommandError(READ_ONLY)


def refuse_while_busy(session: Session) -> None:
    """Raise CommandError while a script that takes too long keeps everybody waiting."""
    if session.instance.scripts.is_busy:
        raise CommandError(BUSY)


def may(session: Session, *words: bytes) -> bool:
    """Tell whether the session's user may make a request, without more ado."""
    return not session.restricted or denial_of(session.user.rules, *find(list(words))) is None


def explain(denial: Denial, user: bytes, names_it: bool = False) -> str:
    """Return Redis's sentence. It names keys and channels only with `names_it`."""
    name = user.decode("utf-8", "surrogateescape")
    what = denial.object.decode("utf-8", "surrogateescape")
    if denial.reason is Reason.COMMAND:
        return f"User {name} has no permissions to run the '{what}' command"
    if names_it:
        return f"User {name} has no permissions to access the '{what}' {denial.reason.value}"
    return f"No permissions to access a {denial.reason.value}"


def note_denial(session: Session, denial: Denial, context: str = "toplevel") -> None:
    """Put into ACL LOG that something was refused."""
    if session.transaction is not None:
        context = "multi"
    session.instance.denials.add(denial, context, session.user.name, describe(session))
