"""One of the processes that contend for a lock: `python -m tests.interop.scripts_contender PORT`.

Each adds to a counter in two steps. It ends with an error if another one holds the lock, too.
"""

from __future__ import annotations

import sys

import redis

ROUNDS = 20


def main(port: int) -> None:
    db = redis.Redis(port=port, decode_responses=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(ROUNDS):
        with db.lock("lock", timeout=60, sleep=0.005, blocking_timeout=60):
            holders = db.incr("holders")
            if holders != 1:
                sys.exit(f"{holders} processes hold the lock")
            number = int(db.get("counter") or 0)
            db.set("counter", number + 1)
            db.decr("holders")


if __name__ == "__main__":
    main(int(sys.argv[1]))
