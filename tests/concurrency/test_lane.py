"""The lane: how many changes are under way at once. On a virtual loop, so nothing is waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from concurrency.simulation import VirtualLoop
from leasehold.concurrency.lane import ACQUIRE, FIRST_RUN, LONGEST_RUN, RELEASE, WIDEST, Lane

if TYPE_CHECKING:
    from collections.abc import Iterator


class Traffic:
    """Changes that take a second each, and who was let through when."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.lane = Lane()
        self.passed: list[str] = []
        self.under_way = self.most = 0

    def enter(self, name: str, priority: int = ACQUIRE) -> asyncio.Task[None]:
        """Have somebody come to the lane."""
        return self.loop.create_task(self._pass(name, priority))

    async def _pass(self, name: str, priority: int) -> None:
        async with self.lane.turn(priority):
            self.passed.append(name)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                await asyncio.sleep(1)
            finally:
                self.under_way -= 1


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    loop = VirtualLoop()
    yield Traffic(loop)
    assert loop.errors == []
    loop.close()


def test_changes_pass_one_at_a_time_in_the_order_of_their_coming(traffic: Traffic) -> None:
    for name in "abc":
        traffic.enter(name)
    traffic.loop.run(10)
    assert traffic.passed == ["a", "b", "c"]
    assert traffic.most == 1


def test_releases_go_before_acquires(traffic: Traffic) -> None:
    traffic.enter("first")
    traffic.enter("acquire")
    traffic.enter("release", RELEASE)
    traffic.loop.run(10)
    assert traffic.passed == ["first", "release", "acquire"]


def test_a_long_run_of_good_answers_lets_one_more_through(traffic: Traffic) -> None:
    for _ in range(FIRST_RUN):
        traffic.lane.answered(busy=False)
    for name in "abcd":
        traffic.enter(name)
    traffic.loop.run(1.5)
    assert traffic.passed == ["a", "b", "c", "d"]
    assert traffic.most == 2


def test_a_busy_server_halves_the_width_and_the_next_run_is_longer(traffic: Traffic) -> None:
    lane = traffic.lane
    for _ in range(FIRST_RUN * 10):
        lane.answered(busy=False)
    assert lane.width == WIDEST
    lane.answered(busy=True)
    assert lane.width == WIDEST // 2
    for _ in range(FIRST_RUN * 4 - 1):
        lane.answered(busy=False)
    assert lane.width == WIDEST // 2
    lane.answered(busy=False)
    assert lane.width == WIDEST // 2 + 1


def test_however_busy_the_server_one_change_is_under_way_and_the_width_can_grow_again(
    traffic: Traffic,
) -> None:
    for _ in range(50):
        traffic.lane.answered(busy=True)
    assert traffic.lane.width == 1
    for _ in range(LONGEST_RUN):
        traffic.lane.answered(busy=False)
    assert traffic.lane.width == 2


def test_who_is_cancelled_while_waiting_takes_no_turn(traffic: Traffic) -> None:
    traffic.enter("a")
    waiting = traffic.enter("b")
    traffic.enter("c")
    traffic.loop.call_later(0.5, waiting.cancel)
    traffic.loop.run(10)
    assert traffic.passed == ["a", "c"]


def test_who_is_cancelled_in_the_moment_of_being_let_in_gives_the_turn_on(
    traffic: Traffic,
) -> None:
    async def leave_and_cancel() -> None:
        async with traffic.lane.turn(ACQUIRE):
            await asyncio.sleep(1)
        waiting.cancel()  # the gate is open for it already, and it has not run yet

    traffic.loop.create_task(leave_and_cancel())
    traffic.loop.run()
    waiting = traffic.enter("a")
    traffic.enter("b")
    traffic.loop.run(10)
    assert traffic.passed == ["b"]


def test_who_is_cancelled_in_the_middle_of_a_change_gives_the_turn_on(traffic: Traffic) -> None:
    first = traffic.enter("a")
    traffic.enter("b")
    traffic.loop.call_later(0.5, first.cancel)
    traffic.loop.run(10)
    assert traffic.passed == ["a", "b"]


def test_after_all_have_left_the_lane_is_free(traffic: Traffic) -> None:
    tasks = [traffic.enter(name) for name in "abcd"]
    traffic.loop.call_later(0.5, tasks[2].cancel)
    traffic.loop.run(10)
    traffic.enter("late")
    traffic.loop.run()
    assert traffic.passed[-1] == "late"
    traffic.loop.run(2)
