"""Who runs scripts: one at a time, each as one step of the store, and never without an end.

A script runs on the event loop's thread, under the store's lock, so nobody sees half of it and
all others wait. After `lua-time-limit` that is turned around: the loop serves the others from
within the script, and answers BUSY to them, but for what may end it.

The machine behind it is made for the first script: most servers never see one, and it takes as
long as a quarter of their start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvdb.config import Config
from kvdb.errors import SCRIPT_UNKILLABLE, CommandError
from kvdb.replies import Reply
from kvdb.scripting.running import Carrier, Running
from kvdb.store import Store

if TYPE_CHECKING:
    from kvdb.scripting.machine import Machine


class Engine:
    """Runs scripts. The store's lock guards `running`; the event loop writes `is_busy`."""

    def __init__(
        self,
        store: Store,
        config: Config,
        call: Carrier,
        may: Callable[[Any, list[bytes]], bool],
        version: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`call` carries out a command for a script and its session; `may` tells whether it may.

        `version` is Redis's, as scripts are to know it.
        """
        self.store, self.config, self.monotonic = store, config, monotonic
        self.version = version
        self._call, self._may = call, may
        self.running: Running | None = None
        self.is_busy = False
        """A script has run for longer than `lua-time-limit`: others get BUSY."""
        self.on_busy: Callable[[], None] = lambda: None
        """Called when `is_busy` has changed."""
        self.serve_others: Callable[[], bool] = lambda: False
        """Lets others have a turn, while a script runs. Returns False if that cannot be done."""
        self.may_call_anything = False  # DEBUG SET-DISABLE-DENY-SCRIPTS
        self.stopping = False
        """The server stops: no script may keep it waiting."""
        self._machine: Machine | None = None

    @property
    def machine(self) -> Machine:
        """What runs scripts, and keeps them."""
        if self._machine is None:
            from kvdb.scripting.machine import Machine

            self._machine = Machine(self)
        return self._machine

    @property
    def count(self) -> int:
        """How many scripts are kept."""
        return len(self._machine.scripts) if self._machine else 0

    @property
    def held_bytes(self) -> int:
        """What the scripts take that are kept, about."""
        return self._machine.scripts.held_bytes if self._machine else 0

    def change_busy(self, is_busy: bool) -> None:
        """Have all others refused from now on, or not any more."""
        if self.is_busy != is_busy:
            self.is_busy = is_busy
            self.on_busy()

    def kill(self) -> None:
        """Have the running script end. Raises CommandError if it has written something."""
        running = self.running
        if running is None:
            raise CommandError("NOTBUSY No scripts in execution right now.")
        if running.wrote:
            raise CommandError(SCRIPT_UNKILLABLE)
        running.ended_by = "Script killed by user with SCRIPT KILL..."

    # --- for the library `redis` ---------------------------------------------------------------

    @property
    def resp(self) -> int:
        """The version of RESP that the running script has chosen."""
        return self.running.resp if self.running else 2

    @resp.setter
    def resp(self, version: int) -> None:
        assert self.running
        self.running.resp = version

    def call(self, words: list[bytes]) -> Reply:
        """See `library.Server`."""
        running = self.running
        assert running
        return self._call(running.session, words, running)

    def may(self, words: list[bytes]) -> bool:
        """See `library.Server`."""
        assert self.running
        return self._may(self.running.session, words)
