"""A person at a terminal: runs a program on a pseudo-terminal, types, and reads the screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType

_ESCAPE_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>])|\r")


class Terminal:
    """Context manager; what the program has shown since the last `expect` is in `screen`."""

    def __init__(self, command: Sequence[str]) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "REDISCLI_HISTFILE": "/dev/null"},
            start_new_session=True,
        )
        os.close(theirs)
        self.screen = b""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def expect(self, text: str, seconds: float = 15.0) -> str:
        """Wait until `text` is shown; return all that was shown up to its end."""
        wanted, deadline = text.encode(), time.monotonic() + seconds
        while (found := self.screen.find(wanted)) < 0:
            readable, _, _ = select.select([self._ours], [], [], deadline - time.monotonic())
            data = b""
            if readable:
                with contextlib.suppress(OSError):  # EIO: the program has ended
                    data = os.read(self._ours, 65536)
            if not data:
                raise AssertionError(f"{text!r} was not shown, but {self.screen!r}")
            # An escape sequence cut in two stays as it is: harmless for what we look for.
            self.screen += _ESCAPE_SEQUENCE.sub(b"", data)
        end = found + len(wanted)
        shown, self.screen = self.screen[:end], self.screen[end:]
        return shown.decode("utf-8", "replace")

    def wait(self, seconds: float = 15.0) -> int:
        """Wait for the program to end; return its exit code."""
        return self._process.wait(seconds)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)
