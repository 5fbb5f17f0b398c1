"""MEMORY: what keys cost, and where the memory is."""

from __future__ import annotations

from kvdb import errors
from kvdb.allocator import give_back
from kvdb.commands.arguments import integer
from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.commands.table import FIRST_KEY, NONE, READ, command, container
from kvdb.config import MB
from kvdb.errors import CommandError
from kvdb.memory import resident_bytes
from kvdb.replies import OK, Reply, Verbatim
from kvdb.store.entry import TABLE_SHARE, Key

container("MEMORY", "What keys cost of the budget, and where the memory is.", group="server")


@command(
    "MEMORY USAGE",
    "key [SAMPLES count]",
    READ,
    "Return what a key costs of the budget, in bytes.",
    group="server",
    keys=FIRST_KEY,
)
def memory_usage(session: Session, key: Key, *options: bytes) -> Reply:
    if options and (
        len(options) != 2 or options[0].upper() != b"SAMPLES" or integer(options[1]) < 0
    ):
        raise CommandError(errors.SYNTAX)
    return session.store.cost(key)


@command("MEMORY STATS", "", NONE, "Return where the memory is, in bytes.", group="server")
def memory_stats(session: Session) -> Reply:
    session.take_leisure()  # some keys of every database are looked at
    instance = session.instance
    store = instance.store
    used, keys, peak = store.used_bytes, store.total_keys, instance.note_peak()
    empty = (instance.governor.empty if instance.governor else None) or 0
    resident = resident_bytes() or 0
    overhead = TABLE_SHARE * keys
    dataset = used - overhead
    found: dict[bytes, Reply] = {
        b"peak.allocated": peak,
        b"total.allocated": used,
        b"startup.allocated": empty,
        b"replication.backlog": (instance.replication.backlog or (0, 0))[1],
        b"clients.slaves": instance.replication.held_bytes,
        b"clients.normal": instance.accounts.held,
        b"cluster.links": 0,
        b"aof.buffer": instance.persistence.held_bytes if instance.persistence else 0,
        b"lua.caches": 0,
        b"functions.caches": 0,
    }
    for db, (count, expiring, _) in store.sizes().items():
        found[b"db.%d" % db] = {
            b"overhead.hashtable.main": TABLE_SHARE * count,
            b"overhead.hashtable.expires": TABLE_SHARE * expiring,
        }
    return found | {
        b"overhead.total": overhead,
        b"keys.count": keys,
        b"keys.bytes-per-key": used // keys if keys else 0,
        b"dataset.bytes": dataset,
        b"dataset.percentage": 100 * dataset / used if used else 0.0,
        b"peak.percentage": 100 * used / peak if peak else 100.0,
        b"fragmentation": _fragmentation(instance, resident - empty),
        b"fragmentation.bytes": max(0, resident - empty - used),
    }


def _fragmentation(instance: Instance, resident: int) -> float:
    used = instance.store.used_bytes
    return resident / used if used else 1.0


_EMPTY = """\
Hi Sam, this instance is empty or is using very little memory, my issues detector can't be used \
in these conditions. Please, leave for your mission on Earth and fill it with some data. The new \
Sam and I will be back to our programming as soon as I finished rebooting.
"""
_HEALTHY = """\
Hi Sam, I can't find any memory issue in your instance. I can only account for what occurs on \
this base.
"""


@command("MEMORY DOCTOR", "", NONE, "Say in words what is wrong with the memory.", group="server")
def memory_doctor(session: Session) -> Reply:
    instance = session.instance
    store, peak = instance.store, instance.note_peak()
    used = store.used_bytes
    if used < 5 * MB:
        return Verbatim(_EMPTY)
    found = []
    if peak > used * 1.5:
        found.append(
            f"Peak memory: entries have taken {peak} bytes once, and take {used} now; the "
            "process may keep what was freed. MEMORY PURGE gives it back to the system."
        )
    governor, resident = instance.governor, resident_bytes()
    if governor and resident and _fragmentation(instance, resident - (governor.empty or 0)) > 1.4:
        found.append(
            f"Fragmentation: the process takes {resident} bytes for {used} bytes of entries. "
            "MEMORY PURGE gives back to the system what is free."
        )
    if store.evicted_keys and store.policy.value == "noeviction":
        found.append("Evictions: keys went before the policy was set to noeviction.")
    limit = instance.config.max_client_bytes
    if limit and instance.accounts.held > limit / 2:
        found.append(
            f"Clients: their buffers and queues take {instance.accounts.held} bytes of {limit} "
            "(--max-client-mb)."
        )
    if not found:
        return Verbatim(_HEALTHY)
    lines = "".join(f" * {each}\n\n" for each in found)
    return Verbatim(f"Sam, I detected a few issues in this instance's memory:\n\n{lines}")


@command("MEMORY PURGE", "", NONE, "Give free memory back to the system.", group="server")
def memory_purge(session: Session) -> Reply:
    session.take_leisure()
    give_back()
    return OK


@command("MEMORY MALLOC-STATS", "", NONE, "Say that there are none here.", group="server")
def memory_malloc_stats(session: Session) -> Reply:
    return Verbatim("Stats not supported for the current allocator")
