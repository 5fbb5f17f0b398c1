"""LATENCY: what took longer than it should, and how long each command takes."""

from __future__ import annotations

from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, command, container
from kvdb.errors import CommandError
from kvdb.latency import Sample, draw
from kvdb.replies import Reply, Verbatim

container("LATENCY", "Look at what took longer than it should.", group="server")

# Redis's own words: people look for them.
_DISABLED = """\
I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis instance. You may \
use "CONFIG SET latency-monitor-threshold <milliseconds>." in order to enable it. If we weren't \
in a deep space mission I'd suggest to take a look at https://redis.io/topics/latency-monitor.
"""
_NOTHING = """\
Dave, no latency spike was observed during the lifetime of this Redis instance, not in the \
slightest bit. I honestly think you ought to sit down calmly, take a stress pill, and think \
things over.
"""
_SPIKES = """\
Dave, I have observed latency spikes in this Redis instance. You don't mind talking about it, do \
you Dave?

"""
_ADVICE = """
I have a few advices for you:

- Check your Slow Log to understand what are the commands you are running which are too slow to \
execute. Please check https://redis.io/commands/slowlog for more information.
"""


@command(
    "LATENCY LATEST",
    "",
    ADMIN,
    "Return the last and the worst spike of each event.",
    group="server",
)
def latency_latest(session: Session) -> Reply:
    return [
        [event.encode(), last.at, last.milliseconds, worst]
        for event, last, worst in session.instance.overseer.latency.latest()
    ]


@command(
    "LATENCY HISTORY",
    "event",
    ADMIN,
    "Return when an event had spikes, and how long.",
    group="server",
)
def latency_history(session: Session, event: bytes) -> Reply:
    history = session.instance.overseer.latency.history(_name(event))
    return [[sample.at, sample.milliseconds] for sample in history]


@command(
    "LATENCY RESET",
    "[event ...]",
    ADMIN,
    "Forget the spikes of these events, or all.",
    group="server",
)
def latency_reset(session: Session, *events: bytes) -> Reply:
    return session.instance.overseer.latency.reset(tuple(map(_name, events)))


@command("LATENCY GRAPH", "event", ADMIN, "Draw the spikes of an event.", group="server")
def latency_graph(session: Session, event: bytes) -> Reply:
    name, latency = _name(event), session.instance.overseer.latency
    history = latency.history(name)
    if not history:
        raise CommandError(f"ERR No samples available for event '{name[:128]}'")
    return Verbatim(draw(name, history, latency.worst(name), session.store.now()))


@command("LATENCY DOCTOR", "", ADMIN, "Say in words what the spikes were.", group="server")
def latency_doctor(session: Session) -> Reply:
    latency = session.instance.overseer.latency
    events = [name for name, _, _ in latency.latest()]
    if not events:
        is_on = session.instance.config.latency_threshold
        return Verbatim(_NOTHING if is_on else _DISABLED)
    lines = [
        _diagnosis(number, event, latency.history(event), latency.worst(event), session.store.now())
        for number, event in enumerate(events, 1)
    ]
    return Verbatim(_SPIKES + "".join(lines) + _ADVICE)


def _diagnosis(number: int, event: str, samples: list[Sample], worst: int, now: float) -> str:
    average = sum(sample.milliseconds for sample in samples) // len(samples)
    deviation = sum(abs(sample.milliseconds - average) for sample in samples) // len(samples)
    period = max(1.0, (now - samples[0].at) / len(samples))
    return (
        f"{number}. {event}: {len(samples)} latency spikes (average {average}ms, mean deviation "
        f"{deviation}ms, period {period:.2f} sec). Worst all time event {worst}ms.\n"
    )


@command(
    "LATENCY HISTOGRAM",
    "[command ...]",
    ADMIN,
    "Return how many calls of these commands, or of all, took how long.",
    group="server",
)
def latency_histogram(session: Session, *commands: bytes) -> Reply:
    times = session.instance.overseer.command_times()
    wanted = dict.fromkeys(_name(each).lower() for each in commands) or times
    chosen = [name for name in times if name in wanted or name.partition("|")[0] in wanted]
    return {
        name.encode(): {
            b"calls": times[name].calls,
            b"histogram_usec": dict(times[name].cumulative()),
        }
        for name in chosen
        if times[name].calls
    }


def _name(word: bytes) -> str:
    return word.decode("utf-8", "replace")
