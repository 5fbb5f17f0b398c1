"""The machine that runs scripts: the language, its libraries, and what a script may take."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from kvdb.errors import CommandError
from kvdb.lua.errors import CATCHABLE, ScriptEnded, line_of, lua_error
from kvdb.lua.library import install
from kvdb.lua.library.basic import tostring
from kvdb.lua.library.mathematics import Random
from kvdb.lua.meter import Meter
from kvdb.lua.program import load
from kvdb.lua.runtime import Runtime
from kvdb.lua.values import ReadOnlyTable, Table, Value, single, table_of
from kvdb.memory import resident_bytes
from kvdb.replies import Reply
from kvdb.scripting.conversion import to_reply
from kvdb.scripting.library import pcall_of_redis, redis_library
from kvdb.scripting.running import Host, Running
from kvdb.scripting.scripts import Script, ScriptCache

log = logging.getLogger(__name__)

_TIMES_LONGER: Final = 10
"""A script that has written nothing is ended after so many times `lua-time-limit`."""

_LEAST_MEMORY: Final = 64 * 1024 * 1024
_MOST_MEMORY: Final = 1024 * 1024 * 1024  # where entries have no budget either
_BLOCK_BYTES: Final = 80  # of Python's memory, about, where the system tells nothing


class Machine:
    """Keeps scripts and runs them, for a host. The store's lock guards all of it."""

    def __init__(self, host: Host) -> None:
        self._host, self._store, self._monotonic = host, host.store, host.monotonic
        self._meter = Meter(host.monotonic, self._look)
        self._random = Random()
        self._runtime = Runtime(self._meter)
        install(self._runtime, self._random)
        names = self._runtime.globals
        names[b"redis"] = ReadOnlyTable(redis_library(host, host.version))
        names[b"pcall"] = pcall_of_redis(names[b"pcall"])
        self.scripts = ScriptCache(lambda source, chunk: load(self._runtime, source, chunk))

    def run(
        self,
        script: Script,
        session: Any,
        keys: list[bytes],
        arguments: list[bytes],
        read_only: bool,
    ) -> Reply:
        """Run a script as one step; return what it answers. Raises CommandError."""
        if script.flags is not None:
            read_only = read_only or "no-writes" in script.flags
            if not read_only and "allow-oom" not in script.flags and self._store.is_full:
                raise CommandError(
                    "OOM allow-oom flag is not set on the script, can not run it when used "
                    "memory > 'maxmemory'"
                )
        with self._store.atomic():
            self._host.running = Running(script, session, read_only, self._monotonic())
            names = self._runtime.globals
            names[b"KEYS"], names[b"ARGV"] = table_of(*keys), table_of(*arguments)
            self._meter.begin()
            try:
                return to_reply(single(script.main()), self._host.resp)
            except ScriptEnded as ended:
                raise self._refusal(f"ERR {ended}", ended) from None
            except CATCHABLE as error:
                return self._failure(error)
            finally:
                self._end()

    def _end(self) -> None:
        self._host.running = None
        names = self._runtime.globals
        names[b"KEYS"] = names[b"ARGV"] = Table()
        self._host.change_busy(False)

    def _failure(self, error: Exception) -> Reply:
        """Return the reply to an error that the script has not caught."""
        value = lua_error(error).value
        text, counted = _error_text(value)
        refusal = self._refusal(text, error)
        if counted:
            return refusal.as_reply()
        raise refusal from None

    def _refusal(self, text: str, error: Exception) -> CommandError:
        running = self._host.running
        assert running
        line = line_of(error)
        where = f" script: {running.script.digest}, on @user_script:{line}." if line else ""
        return CommandError(text + where)

    def _look(self) -> None:
        """See now and then whether the running script may go on. Raises ScriptEnded if not."""
        running = self._host.running
        if running is None:  # it is only compiled
            return
        self._look_at_memory(running)
        limit = self._host.config.script_time_limit / 1000
        seconds = self._monotonic() - running.began
        is_late = limit > 0 and seconds >= limit
        if self._host.stopping and (is_late or not running.wrote):
            raise ScriptEnded("Script ended, because the server stops")
        if not is_late:
            return
        if not self._host.is_busy:
            self._host.change_busy(True)
            log.warning(
                "script %s has run for %.1f s: others get BUSY until it ends (SCRIPT KILL)",
                running.script.digest, seconds,
            )  # fmt: skip
        others_wait = not self._host.serve_others()
        if running.ended_by:
            raise ScriptEnded(running.ended_by)
        if (others_wait or seconds >= limit * _TIMES_LONGER) and not running.wrote:
            raise ScriptEnded(f"Script ended after {seconds:.0f} s: it has written nothing so far")

    def _look_at_memory(self, running: Running) -> None:
        taken = (
            resident_bytes() or sys.getallocatedblocks() * _BLOCK_BYTES
        ) - self._store.used_bytes
        if running.memory is None:
            running.memory = taken
        budget = self._store.max_bytes
        most = max(_LEAST_MEMORY, budget) if budget else _MOST_MEMORY
        if taken - running.memory > most:
            raise ScriptEnded("not enough memory")


def _error_text(value: Value) -> tuple[str, bool]:
    """Return what is told of an error value, and whether it was counted when it happened."""
    if isinstance(value, Table):
        text = value.get(b"err")
        if type(text) is not bytes:
            return "ERR unknown error", False
        return text.decode("utf-8", "surrogateescape"), b"ignore_error_stats_update" in value
    shown: bytes = tostring(value)
    return "ERR " + shown.decode("utf-8", "surrogateescape"), False
