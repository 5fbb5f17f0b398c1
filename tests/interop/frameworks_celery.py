"""Celery, which keeps results in kvdb; its broker is a folder, since as one it needs lists."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests.interop.frameworks_case import FrameworkCase
from tests.interop.servers import ROOT

APP = "tests.interop.frameworks_celery_app"
START_SECONDS = 50.0  # a worker takes a second, on a computer that has nothing else to do


class _Celery(FrameworkCase):
    distribution = "celery"

    @contextlib.contextmanager
    def tasks(self) -> Iterator[Any]:
        """Run a worker; yield the module of its tasks, whose results are where the setting says."""
        with tempfile.TemporaryDirectory(prefix="kvdb-celery-") as folder:
            variables = {"CELERY_FOLDER": folder, "CELERY_RESULTS": self.configured()}
            self.log = Path(folder) / "worker.log"
            command = [sys.executable, "-m", "celery", "--app", APP, "worker", "--pool", "solo"]
            command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            with mock.patch.dict(os.environ, variables), open(self.log, "wb") as log:
                sys.modules.pop(APP, None)
                module = importlib.import_module(APP)
                worker = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
                try:
                    yield module
                except Exception as error:
                    error.add_note(self.log.read_text(encoding="utf-8")[-5000:])
                    raise
                finally:
                    worker.kill()  # asked nicely, it takes seconds
                    worker.wait()
                    # Results unsubscribe when they go, perhaps after the server has gone.
                    module.app.backend.remove_pending_result = lambda result: result
                    module.app.close()

    def assert_results(self, tasks: Any) -> None:
        from celery import chain, group

        result = tasks.add.delay(1, 2)
        self.assertEqual(result.get(timeout=START_SECONDS), 3)
        self.assert_ttl(f"celery-task-meta-{result.id}", 1000)
        numbers = group(tasks.add.s(n, n) for n in range(5))()
        self.assertEqual(numbers.get(timeout=START_SECONDS), [0, 2, 4, 6, 8])
        chained = chain(tasks.add.s(1, 2), tasks.add.s(4))()
        self.assertEqual(chained.get(timeout=START_SECONDS), 7)
        with self.assertRaisesRegex(ValueError, "as it should"):
            tasks.fail.delay().get(timeout=START_SECONDS)


class CeleryOnRedis(_Celery):
    library = "Celery, results in Redis"
    packages = ("celery", "redis", "kombu.transport.redis")
    setting = "'redis://127.0.0.1:4242/0'"

    def test_results_of_tasks_groups_and_chains(self) -> None:
        with self.tasks() as tasks:
            self.assert_results(tasks)
            tasks.start_chord.delay().get(timeout=START_SECONDS)
            deadline = time.monotonic() + START_SECONDS
            while "command called from script: 'SISMEMBER'" not in self.log.read_text("utf-8"):
                self.assertLess(time.monotonic(), deadline, "the chord was not refused")
                time.sleep(0.01)
        self.note_refusal("SISMEMBER", "chords")

    def test_refused_broker(self) -> None:
        from celery import Celery

        app = Celery(broker=self.configured())
        self.addCleanup(app.close)
        with self.refused("LLEN", "a broker"):
            app.send_task("add", args=(1, 2), retry=False)


class CeleryOnMemcached(_Celery):
    library = "Celery, results in memcached"
    protocol = "memcached"
    packages = ("celery", "pymemcache")
    setting = "'cache+memcached://127.0.0.1:11211/'"

    def test_results_of_tasks_groups_chains_and_chords(self) -> None:
        from celery import chord

        with self.tasks() as tasks:
            self.assert_results(tasks)
            added = chord([tasks.add.s(n, n) for n in range(5)], tasks.total.s())()
            self.assertEqual(added.get(timeout=START_SECONDS), 20)
