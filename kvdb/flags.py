"""A parser of command lines whose complaints are one sentence, for the server and the tools."""

from __future__ import annotations

import argparse
import sys
from typing import Final, NoReturn

BAD_USAGE: Final = 2
"""The exit code for a command line that cannot be used."""


class Parser(argparse.ArgumentParser):
    """As argparse has it; but an error is one sentence, and a misspelt flag gets a proposal."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong on standard error and exit with code 2."""
        name = self.prog.removeprefix("python -m ")
        print(
            f"{name}: {message}{self._proposal(message)} (--help lists the flags)", file=sys.stderr
        )
        sys.exit(BAD_USAGE)

    def _proposal(self, message: str) -> str:
        """Return which flag may have been meant, if there is one that looks like it."""
        _, _, words = message.partition("unrecognized arguments: ")
        flags = [word.partition("=")[0] for word in words.split() if word.startswith("--")]
        if not flags:
            return ""
        from difflib import get_close_matches  # only who mistypes needs it

        close = get_close_matches(flags[0], self._option_string_actions, 1)
        return f"; did you mean {close[0]}?" if close else ""
