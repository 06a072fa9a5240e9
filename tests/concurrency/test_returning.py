"""Slots that come back after trouble: restarts, outages, the end of the keeper."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from concurrency.simulated_server import (
    ADDRESS,
    REFUSED,
    Fault,
    ServerLimit,
    SimulatedApi,
    SimulatedServer,
)
from concurrency.simulation import World
from leasehold.client.wire import SlotRequest
from leasehold.concurrency.acquisition import Acquisition
from leasehold.concurrency.keeper import Keeper
from leasehold.settings import Settings


def test_a_task_that_ends_between_a_restart_and_its_next_renewal_leaves_no_slot_behind() -> None:
    with World(database=1) as world:
        process = world.process()
        work = process.work("database")
        world.run(5)
        world.server.restart()
        world.run(5)
        work.finish()
        world.run(1)
        following = process.work("database")
        world.run(300)
        assert following.believes


@pytest.mark.parametrize(("fault", "seconds"), [(REFUSED, 700), (Fault(status=401), 70)])
def test_work_regains_its_slot_after_whatever_outage(fault: Fault, seconds: float) -> None:
    with World(database=1) as world:
        work = world.process().work("database")
        world.run(5)
        world.server.weather = lambda _: fault
        world.run(seconds)
        world.server.quieten()
        world.run(300)
        assert work.state == "running"
        assert work.believes


def test_a_lost_lease_that_cannot_be_given_back_is_no_second_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with World(database=1) as world:
        world.process().work("database")
        world.run(20)
        world.server.weather = lambda _: REFUSED
        world.run(90)
        assert "could not be given back" not in caplog.text


def test_an_acquire_under_way_when_the_keeper_closes_leaves_no_slot_behind() -> None:
    servers: list[SimulatedServer] = []

    def open_api(_: Settings) -> SimulatedApi:
        limits = {"tag:database": ServerLimit(1)}
        servers.append(SimulatedServer(asyncio.get_running_loop(), limits))
        servers[0].order("acquire", Fault(reply_late=0.5))
        return SimulatedApi(servers[0])

    keeper = Keeper(Settings(api_url=ADDRESS, guard=False), open_api=cast("Any", open_api))
    keeper.acquire(Acquisition(SlotRequest(("tag:database",)), who="work"))
    time.sleep(0.3)
    keeper.close()
    assert servers[0].used("tag:database") == 0


@pytest.mark.parametrize("milliseconds", range(16))
def test_healing_is_not_fooled_by_a_release_between_its_two_looks(milliseconds: int) -> None:
    with World(database=2) as world:
        mine, theirs = (world.process(handover_seconds=0).work("database") for _ in range(2))
        world.run(10)
        world.server.order(
            "renew", Fault(status=504, acted=True)
        )  # the question before the release
        mine.finish()
        world.at(milliseconds / 1000, theirs.finish)
        new = world.process().work("database")
        world.run(5)  # `World.check`: no slot of a live lease is taken away
        assert new.state in {"running", "waiting"}
