"""Whatever happens to single requests: limits hold, tasks end, and slots come back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from leasehold import concurrency, flow, task
from leasehold.task_runners import ThreadPoolTaskRunner
from proxy import Fault, Seen, sometimes
from scenarios.gauges import Gauge, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.conftest import Limits
    from proxy import Proxy

FAULTS = [fault for fault in Fault if fault is not Fault.NONE]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a hanging request soon, so that a test sees many of them."""
    monkeypatch.setenv("LEASEHOLD_REQUEST_TIMEOUT_SECONDS", "1")


def run_thirty_tasks(tag: str) -> Gauge:
    gauge = Gauge()

    @task(tags=[tag])
    def work(number: int) -> int:
        gauge.work(0.02)
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def thirty() -> list[int]:
        return work.map(range(30)).result()

    assert thirty() == list(range(30))
    return gauge


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
def test_thirty_tasks_under_a_limit_of_two_survive(
    fault: Fault, proxy: Proxy, limits: Limits
) -> None:
    tag = limits.tag(2)
    proxy.plan = sometimes(fault, share=0.25, seed=7)
    gauge = run_thirty_tasks(tag)
    assert proxy.count(fault) > 0
    assert gauge.runs == 30
    assert gauge.peak <= 2
    wait_until(lambda: limits.used(f"tag:{tag}") == 0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thirty_tasks_under_a_limit_of_two_survive_a_mix_of_all(
    seed: int, proxy: Proxy, limits: Limits
) -> None:
    tag = limits.tag(2)
    proxy.plan = sometimes(*FAULTS, share=0.35, seed=seed)
    gauge = run_thirty_tasks(tag)
    assert gauge.runs == 30
    assert gauge.peak <= 2
    wait_until(lambda: limits.used(f"tag:{tag}") == 0)


def the_first(part: str, fault: Fault) -> Callable[[Seen], Fault]:
    """Have something happen to the first request with `part` in its path."""
    left = [fault]
    return lambda seen: left.pop() if left and part in seen.path else Fault.NONE


def test_a_grant_whose_reply_got_lost_is_taken_back_before_the_next_question(
    proxy: Proxy, limits: Limits
) -> None:
    tag = limits.tag(1)
    proxy.plan = the_first("increment-with-lease", Fault.DROP)

    @task(tags=[tag])
    def work() -> int:
        return limits.used(f"tag:{tag}")

    started = time.monotonic()
    assert work() == 1
    assert time.monotonic() - started < 10  # a lease would have been in the way for 60 s
    mutations = [seen.path.rsplit("/", 1)[-1] for seen, _ in proxy.seen if seen.method == "POST"]
    assert mutations[:3] == ["increment-with-lease", "decrement", "increment-with-lease"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_lost_grant_of_a_plain_limit_is_told_and_gone_after_one_lease(
    proxy: Proxy, limits: Limits, warnings: Callable[[str], list[str]]
) -> None:
    name = limits.plain(1)
    proxy.plan = the_first("increment-with-lease", Fault.DROP)
    started = time.monotonic()
    with concurrency(name, lease_duration=60):
        waited = time.monotonic() - started
    assert 55 < waited < 60 + 10
    assert len(warnings(name)) == 1
    assert "60 s" in warnings(name)[0]


def test_a_release_whose_reply_got_lost_is_sent_again_and_frees_one_slot_only(
    proxy: Proxy, limits: Limits
) -> None:
    tag = limits.tag(2)
    with concurrency(f"tag:{tag}"):
        proxy.plan = the_first("decrement-with-lease", Fault.DROP)
        run_with_slot(tag)
        wait_until(lambda: proxy.requests("decrement-with-lease") == 2)
        wait_until(lambda: limits.used(f"tag:{tag}") == 1)
    wait_until(lambda: limits.used(f"tag:{tag}") == 0)


def run_with_slot(tag: str) -> None:
    with concurrency([f"tag:{tag}"], lease_duration=61):
        pass


def test_a_release_that_fails_changes_neither_the_result_nor_the_error(
    proxy: Proxy, limits: Limits
) -> None:
    tag = limits.tag(1)

    @task(tags=[tag])
    def work(fails: bool) -> str:  # noqa: FBT001 - the task's parameter
        proxy.plan = lambda seen: Fault.STATUS_500 if "decrement" in seen.path else Fault.NONE
        if fails:
            raise ZeroDivisionError("the body's own")
        return "the body's own"

    assert work(fails=False) == "the body's own"
    proxy.plan = lambda _: Fault.NONE
    wait_until(lambda: limits.used(f"tag:{tag}") == 0)
    with pytest.raises(ZeroDivisionError, match="the body's own"):
        work(fails=True)
    proxy.plan = lambda _: Fault.NONE
    wait_until(lambda: limits.used(f"tag:{tag}") == 0)


@pytest.mark.parametrize("pause", [4.9, 5.0, 5.1])
def test_connections_that_the_server_has_cut_meanwhile_are_no_failure(
    pause: float,
    prefect_server_url: str,
    limits: Limits,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[str], list[str]],
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server_url)
    tag = limits.tag(1)

    @task(tags=[tag])
    def work() -> bool:
        return True

    assert work()
    time.sleep(pause)  # uvicorn cuts idle connections after 5 s
    assert work()
    assert warnings("") == []
