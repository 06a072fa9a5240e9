"""What is measured, with whom, and what is aimed for.

A `Case` is a line of the table of targets (README.md). Its sizes are those of the table; with
``quick`` they are as small as still makes sense, to see that everything runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from benchmarks.figures import (
    Figure,
    at_least,
    at_most,
    times_faster,
    times_the_floor,
    times_the_ideal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


WITHOUT_HANDOVER: Final = {"LEASEHOLD_HANDOVER_SECONDS": "0"}

#: Prefect's workers may take minutes.
LONG_SECONDS: Final = 1800.0


@dataclass(frozen=True)
class Side:
    """One program that a case runs.

    Attributes:
        name: what figures call it: leasehold, prefect, floor, or what sets it apart.
        worker: its module in `benchmarks.workers`.
        options: its command line, `--sdk` and `--limit` excepted.
        sdk: whose interpreter it runs with, and whose SDK it uses.
        place: where its limit is: on the server that it shares with the others, on an embedded
            ledger of its own, or nowhere.
        limit: the size of the limit that is made for it, under a new name each time; None: none.
        tagged: whether it is a tag's limit; then the worker is told the tag.
        copies: how many of it run at once.
        env: settings beyond the usual ones.
        counted: whether its requests go through a proxy that counts them.
        repeats: how often it runs in each round.
        most_rounds: in how many rounds it runs at most; for what takes minutes.
        timeout_seconds: the most that one run may take.
    """

    name: str
    worker: str
    options: tuple[str, ...] = ()
    sdk: Literal["leasehold", "prefect"] = "leasehold"
    place: Literal["server", "embedded", "nowhere"] = "server"
    limit: int | None = None
    tagged: bool = False
    copies: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    counted: bool = False
    repeats: int = 1
    most_rounds: int = 100
    timeout_seconds: float = 300.0


@dataclass(frozen=True)
class Case:
    """Some sides, run in turn, and the figures that are read from them."""

    name: str
    title: str
    sides: tuple[Side, ...]
    figures: tuple[Figure, ...]


def all_cases(*, quick: bool = False) -> tuple[Case, ...]:
    """List all cases."""
    most = 10 if quick else 100_000
    return (
        _import(),
        _untagged(calls=min(4000, most)),
        _unlimited(calls=min(4000, most), seconds=1 if quick else 16),
        _pair(pairs=min(100, most)),
        _tasks("tasks", tasks=min(100, most), seconds=0.0, limit=1000),
        _tasks("tasks-5", tasks=min(100, most), seconds=0.1, limit=5, times=1.15),
        _tasks("tasks-10", tasks=min(400, most), seconds=0.02, limit=10, times=1.5),
        _processes(tasks=3 if quick else 25),
        _handing(changes=2 if quick else 15),
        _killed(changes=1 if quick else 7),
        _leases(leases=min(1000, most), seconds=2 if quick else 180),
        _embedded(seconds=0.5 if quick else 5),
        _guard(repeats=1 if quick else 5),
        _growth("growth", tasks=min(100, most), seconds=0.0, limit=1000),
        _growth("growth-5", tasks=min(100, most), seconds=0.1, limit=5),
        _growth("growth-10", tasks=min(400, most), seconds=0.02, limit=10),
        _waiting(tasks=min(200, most), seconds=1 if quick else 10),
    )


def _flags(**options: object) -> tuple[str, ...]:
    pairs = ((f"--{name}", str(value)) for name, value in options.items())
    return tuple(part for pair in pairs for part in pair)


def _both(side: Side, prefect_options: tuple[str, ...] | None = None) -> tuple[Side, Side]:
    """Have Prefect's client do the same, or less of it."""
    options = side.options if prefect_options is None else prefect_options
    theirs = replace(side, name="prefect", sdk="prefect", options=options, env={})
    return side, replace(theirs, timeout_seconds=LONG_SECONDS)


def _import() -> Case:
    def importing(statement: str) -> Side:
        options = _flags(statement=statement)
        return Side("leasehold", "importing", options, place="nowhere", repeats=3)

    prefect = importing("from prefect import flow, task")
    pydantic = importing("from pydantic import BaseModel")
    slots = importing("import asyncio, httpx, anyio._backends._asyncio, httpcore")
    return Case(
        "import",
        "Import of flow and task; the floor is pydantic alone",
        (
            importing("from leasehold import flow, task"),
            replace(prefect, name="prefect", sdk="prefect"),
            replace(pydantic, name="floor"),
            replace(slots, name="slots"),
        ),
        (
            Figure("import", "s", "seconds", (times_faster(20), times_the_floor(1.5))),
            Figure("libraries that the first slot needs", "s", "seconds", side="slots", prefect=""),
        ),
    )


def _untagged(*, calls: int) -> Case:
    few = _flags(calls=max(calls // 40, 1))
    ours, theirs = _both(Side("leasehold", "overhead", _flags(calls=calls), repeats=3), few)
    bare = replace(ours, name="floor", worker="bare_pool")
    return Case(
        "untagged",
        "A task without tags, beyond the call of its function; the floor is a bare pool of threads",
        (ours, bare, replace(theirs, repeats=1)),
        (
            Figure("direct call", "µs", "call_us", (times_faster(100), at_most(30))),
            Figure("submit", "µs", "submit_us", (times_faster(100), at_most(150))),
        ),
    )


def _unlimited(*, calls: int, seconds: float) -> Case:
    untagged = Side("floor", "overhead", _flags(calls=calls), repeats=5)
    tagged = replace(untagged, name="leasehold", tagged=True)
    watched = Side("watched", "unlimited", _flags(seconds=seconds), tagged=True, counted=True)
    return Case(
        "unlimited",
        "A task whose tag has no limit; the floor is the same without a tag",
        (tagged, untagged, watched),
        (
            Figure("direct call", "µs", "call_us", (times_the_floor(1.1),)),
            Figure("submit", "µs", "submit_us", (times_the_floor(1.1),)),
            Figure(f"tasks in {seconds} s", "", "tasks", side="watched"),
            # One asks for the version; the cache is believed for 5 s, so that at most one more is
            # sent in each.
            Figure("their requests", "", "requests", (at_most(2 + seconds // 5),), side="watched"),
        ),
    )


def _pair(*, pairs: int) -> Case:
    ours = Side("leasehold", "pair", _flags(pairs=pairs), limit=1, env=WITHOUT_HANDOVER, repeats=3)
    floor = replace(ours, name="floor", worker="floor")
    ours, theirs = _both(ours, _flags(pairs=max(pairs // 5, 1)))
    return Case(
        "pair",
        "An acquire and a release, with nobody in the way; the floor is two bare requests",
        (ours, floor, replace(theirs, repeats=1)),
        (Figure("acquire + release", "ms", "ms", (times_the_floor(1.15),)),),
    )


def _tasks(name: str, *, tasks: int, seconds: float, limit: int, times: float = 0) -> Case:
    options = _flags(tasks=tasks, seconds=seconds)
    ours, theirs = _both(Side("leasehold", "tasks", options, limit=limit, tagged=True))
    leases = min(limit, tasks)
    ideal = tasks * seconds / limit
    target = times_the_ideal(times, ideal) if ideal else times_faster(30)
    floor = Side("floor", "floor", options + _flags(leases=leases), limit=limit)
    whole = Figure("until all are done", "s", "seconds", (target,))
    sides, figures = [floor], [whole]
    if ideal:
        sides += [
            replace(floor, name="cold", worker="cold_floor"),
            replace(ours, name="warm", options=("--warm", *options)),
        ]
        again = Figure(
            "the same, not the first in its process", "s", "seconds", side="warm", prefect=""
        )
        figures = [replace(whole, floor="cold"), again]
    return Case(
        name,
        f"{tasks} tasks of {seconds:g} s, limit {limit}; the floor takes {leases} leases",
        (
            ours,
            *sides,
            replace(theirs, most_rounds=1 if tasks > 100 else 100),
        ),
        (
            *figures,
            Figure("most at once", "", "most_at_once", (at_most(limit),)),
        ),
    )


def _processes(*, tasks: int) -> Case:
    options = _flags(tasks=tasks, seconds=0.1)
    ours, theirs = _both(Side("leasehold", "tasks", options, limit=5, tagged=True, copies=4))
    embedded = replace(ours, name="embedded", place="embedded")
    ideal = 4 * tasks * 0.1 / 5
    whole = Figure("until all are done", "s", "seconds", (times_the_ideal(1.5, ideal),))
    fair = Figure("slowest process : fastest", "", "seconds_spread", (at_most(1.5),))
    return Case(
        "processes",
        f"4 processes of {tasks} tasks of 0.1 s, limit 5",
        (ours, embedded, theirs),
        (
            whole,
            fair,
            replace(whole, title="embedded: until all are done", side="embedded", prefect=""),
            replace(fair, title="embedded: slowest : fastest", side="embedded", prefect=""),
        ),
    )


def _handing(*, changes: int) -> Case:
    inside, theirs = _both(
        Side("leasehold", "handing", ("--inside", *_flags(changes=changes, waits=0.2)), limit=1)
    )
    across = replace(inside, name="across", options=_flags(changes=changes))
    return Case(
        "handing",
        "From the end of one body to the beginning of the next, limit 1",
        (inside, theirs, across, replace(across, name="prefect-across", sdk="prefect")),
        (
            Figure("in the same process", "ms", "ms", (at_most(30),)),
            Figure(
                "in another process",
                "ms",
                "ms",
                (at_most(1200),),
                side="across",
                prefect="prefect-across",
            ),
        ),
    )


def _killed(*, changes: int) -> Case:
    options = ("--kill", *_flags(changes=changes))
    server, theirs = _both(
        Side("leasehold", "handing", options, limit=1), ("--kill", *_flags(changes=1))
    )
    embedded = replace(server, name="embedded", place="embedded")
    return Case(
        "killed",
        "From the SIGKILL of a holder to the beginning of the next body, limit 1",
        (server, embedded, replace(theirs, most_rounds=1)),
        (
            Figure("on the server", "ms", "ms", (at_most(2000),)),
            Figure("embedded", "ms", "ms", (at_most(200),), side="embedded", prefect=""),
        ),
    )


def _leases(*, leases: int, seconds: float) -> Case:
    options = _flags(leases=leases, seconds=seconds)
    return Case(
        "leases",
        f"{leases} leases of 60 s held for {seconds} s",
        (
            Side(
                "leasehold",
                "many_leases",
                options,
                limit=leases + 1,
                most_rounds=1,
                timeout_seconds=LONG_SECONDS,
            ),
        ),
        (
            Figure("lost", "", "lost", (at_most(0),)),
            Figure("missing at the end", "", "missing", (at_most(0),)),
            Figure("threads added", "", "threads", (at_most(1),)),
            Figure("memory of one", "KB", "lease_kb", (at_most(30),)),
            Figure("latest renewal, late by this share of D", "", "late_share", (at_most(1 / 3),)),
            Figure("to take one", "ms", "acquire_ms"),
            Figure("CPU while holding", "%", "cpu_share", scale=100),
        ),
    )


def _embedded(*, seconds: float) -> Case:
    one = Side(
        "leasehold",
        "embedded",
        _flags(seconds=seconds),
        place="embedded",
        limit=100,
        env=WITHOUT_HANDOVER,
    )
    four = replace(one, name="four", copies=4)
    bare = replace(one, name="floor", worker="floor", options=_flags(pairs=int(1000 * seconds)))
    return Case(
        "embedded",
        "Acquires and releases on the embedded ledger, one caller in each process; the floor is "
        "bare httpx on the ledger, without a thread for the caller",
        (one, bare, four),
        (
            Figure("one process, pairs", "/s", "per_second", (at_least(1200),)),
            Figure("its waits, median", "ms", "p50_ms"),
            Figure("its waits, 99 %", "ms", "p99_ms", (at_most(20),)),
            Figure("four processes, pairs", "/s", "per_second_sum", (at_least(1000),), side="four"),
            Figure(
                "their waits, 99 % of the slowest", "ms", "p99_ms_most", (at_most(20),), side="four"
            ),
            Figure("most pairs : fewest", "", "per_second_spread", (at_most(2),), side="four"),
        ),
    )


def _guard(*, repeats: int) -> Case:
    guarded = Side("leasehold", "guard", limit=1, repeats=repeats)
    alone = replace(guarded, name="floor", env={"LEASEHOLD_GUARD": "false"})
    return Case(
        "guard",
        "The guard; the floor is a process without it",
        (guarded, alone),
        (
            Figure("its memory, resident", "MB", "rss_mb", (at_most(20),)),
            Figure("its memory, not shared", "MB", "own_mb"),
            Figure("its start, as part of the first acquire", "ms", "start_ms", (at_most(5),)),
            Figure("the first acquire", "ms", "first_ms"),
        ),
    )


def _growth(name: str, *, tasks: int, seconds: float, limit: int) -> Case:
    few = Side("floor", "tasks", _flags(tasks=tasks, seconds=seconds), limit=limit, tagged=True)
    many = replace(few, name="leasehold", options=_flags(tasks=10 * tasks, seconds=seconds))
    return Case(
        name,
        f"{10 * tasks} tasks of {seconds:g} s, limit {limit}; the floor is 10 × what {tasks} take",
        (many, few),
        (
            Figure("until all are done", "s", "seconds", (times_the_floor(1.1),), floor_times=10),
            Figure("CPU", "s", "cpu_seconds", (times_the_floor(1.1),), floor_times=10),
            Figure(
                "memory", "MB", "memory_bytes", (times_the_floor(1.1),), floor_times=10, scale=1e-6
            ),
        ),
    )


def _waiting(*, tasks: int, seconds: float) -> Case:
    few = Side("floor", "waiting", _flags(tasks=tasks, seconds=seconds), limit=1, tagged=True)
    many = replace(few, name="leasehold", options=_flags(tasks=10 * tasks, seconds=seconds))
    return Case(
        "waiting",
        f"{10 * tasks} tasks that wait for a slot of somebody else, which is asked for now and "
        f"then; the floor is {tasks}",
        (many, few),
        (
            Figure("CPU", "%", "cpu_share", (at_most(2), times_the_floor(1.2)), scale=100),
            Figure("memory", "MB", "memory_bytes", scale=1e-6),
        ),
    )
