"""What a script asks of the server: commands, carried out as the user who runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvdb.acl import Reason
from kvdb.commands.permissions import denial_of, note_denial, refuse_on_replica
from kvdb.commands.table import find
from kvdb.errors import CommandError
from kvdb.replies import Reply
from kvdb.scripting.running import Running

if TYPE_CHECKING:
    from kvdb.commands.session import Session

_DENIALS: Final = {
    Reason.COMMAND: "ERR The user executing the script can't run this command or subcommand",
    Reason.KEY: (
        "ERR The user executing the script can't access at least one of the keys mentioned in "
        "the command arguments"
    ),
    Reason.CHANNEL: (
        "ERR The user executing the script can't publish to the channel mentioned in the command"
    ),
}


def call_from_script(session: Session, words: list[bytes], running: Running) -> Reply:
    """Carry out a command for the script that is running. Raises CommandError, counted."""
    try:
        row, arguments = find(words)
    except CommandError as error:
        raise session.counted(CommandError(_unfound(error, words))) from None
    if row.no_script and not session.instance.scripts.may_call_anything:
        raise _refusal(session, "ERR This Redis command is not allowed from script")
    if session.restricted:
        denial = denial_of(session.user.rules, row, arguments)
        if denial is not None:
            note_denial(session, denial, "lua")
            raise _refusal(session, _DENIALS[denial.reason])
    if row.writes:
        if running.read_only:
            raise _refusal(session, "ERR Write commands are not allowed from read-only scripts.")
        try:
            refuse_on_replica(session)
        except CommandError as error:
            raise _refusal(session, error.text) from None
        running.wrote = True
    return session.run(row, arguments)


def may_call(session: Session, words: list[bytes]) -> bool:
    """Tell whether the user of the script that is running may do that. Raises CommandError."""
    return denial_of(session.user.rules, *find(words)) is None


def _refusal(session: Session, text: str) -> CommandError:
    return session.counted(CommandError(text))


def _unfound(error: CommandError, words: list[bytes]) -> str:
    """Return Redis's words; a command that there is not is named, so that its user can be told."""
    if "wrong number of arguments" in error.text:
        return "ERR Wrong number of args calling Redis command from script"
    name = words[0][:128].decode("utf-8", "backslashreplace")
    return f"ERR Unknown Redis command called from script: '{name}'"
