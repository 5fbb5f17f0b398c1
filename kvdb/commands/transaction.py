"""What MULTI collects until EXEC carries it out."""

from __future__ import annotations

from kvdb.commands.table import QUICK_WORDS, Command
from kvdb.errors import CommandError


class Transaction:
    """What MULTI has queued so far."""

    def __init__(self) -> None:
        self.queue: list[tuple[Command, list[bytes]]] = []
        self.aborted = False  # an error while queueing: EXEC will refuse
        self.bytes = 0
        """What the queue takes, about."""
        self.words = 0
        self.grows = False  # something in it may need memory
        self.is_long = False  # something in it takes long, or all of it does
        self.runs_script = False

    def append(self, row: Command, arguments: list[bytes], max_bytes: int) -> None:
        """Queue a command. Raises CommandError if that makes the transaction too large."""
        # A queued command takes about 200 bytes beside its arguments.
        self.bytes += 200 + sum(len(argument) + 40 for argument in arguments)
        if self.bytes > max_bytes:
            self.aborted, self.bytes = True, 0
            self.queue.clear()
            raise CommandError(f"ERR the transaction is larger than {max_bytes} bytes")
        self.queue.append((row, arguments))
        self.words += 1 + len(arguments)
        self.grows = self.grows or row.grows
        self.is_long = self.is_long or row.may_be_long or self.words > QUICK_WORDS
        self.runs_script = self.runs_script or row.runs_script
