"""submit, map, futures and states."""

from __future__ import annotations

import asyncio
import pickle
import re
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from leasehold import allow_failure, as_completed, flow, task, unmapped, wait
from leasehold.exceptions import (
    FailedRun,
    MissingContextError,
    ParameterBindError,
    UnfinishedRun,
    UpstreamFailedError,
    UpstreamTaskError,
)
from leasehold.futures import PrefectFuture
from leasehold.states import Cancelled, Completed, Crashed, Failed, Pending, State, StateType
from leasehold.utilities.annotations import quote


class Pair(NamedTuple):
    """Two things."""

    a: Any
    b: Any


@dataclass
class Box:
    """Holds something."""

    content: Any


@task
def echo(value: Any = None) -> Any:
    return value


@task
def fails(text: str = "always") -> Any:
    raise ZeroDivisionError(text)


def in_a_flow(body: Any) -> Any:
    """Run `body` as a flow, and give what it gives."""
    results: list[Any] = []
    flow(name="test")(lambda: results.append(body()))()
    return results[0]


def test_futures_are_replaced_inside_collections_dataclasses_and_named_tuples() -> None:
    def body() -> Any:
        one = echo.submit(1)
        value = {"list": [one, (one, 2)], "set": {3}, "box": Box(one), "pair": Pair(one, [one])}
        return echo.submit(value).result()

    assert in_a_flow(body) == {
        "list": [1, (1, 2)],
        "set": {3},
        "box": Box(1),
        "pair": Pair(1, [1]),
    }


def test_an_argument_without_futures_is_the_same_object() -> None:
    value = {"rows": [[1, 2], [3]]}
    assert in_a_flow(lambda: echo.submit(value).result()) is value


def test_what_is_quoted_is_not_searched() -> None:
    def body() -> Any:
        future = echo.submit(1)
        return echo.submit(quote([future])).result()

    (future,) = in_a_flow(body)
    assert isinstance(future, PrefectFuture)


def test_a_failed_input_makes_the_run_not_ready() -> None:
    def body() -> Any:
        future = echo.submit([fails.submit()])
        future.wait()
        return future

    future = in_a_flow(body)
    assert future.state.name == "NotReady"
    assert future.state.type is StateType.PENDING
    with pytest.raises(UpstreamFailedError) as caught:
        future.result()
    assert re.fullmatch(
        r"Task run 'echo-\d+' did not start: its input 'fails-\d+' is Failed "
        r"\(ZeroDivisionError: always\)\.",
        str(caught.value),
    )
    assert caught.value.run == future.name


def test_a_flow_says_too_which_input_failed() -> None:
    lenient: Any = flow(name="lenient")(lambda value: value)
    with pytest.raises(UpstreamFailedError, match=r"Flow 'lenient' did not start: its input 'fa"):
        in_a_flow(lambda: lenient(fails.submit()))
    with pytest.raises(UpstreamTaskError, match=r"its input is Failed \(no rows\)\."):
        lenient(Failed(message="no rows"))


def test_allow_failure_gives_the_exception_instead() -> None:
    def body() -> Any:
        bad, good = fails.submit("why"), echo.submit(1)
        return echo.submit([allow_failure(bad), good]).result()

    error, good = in_a_flow(body)
    assert isinstance(error, ZeroDivisionError)
    assert good == 1


def test_wait_for_orders_runs_and_passes_failures_on() -> None:
    order: list[str] = []

    @task
    def note(text: str, seconds: float = 0) -> None:
        time.sleep(seconds)
        order.append(text)

    def body() -> Any:
        first = note.submit("first", 0.1)
        second = note.submit("second", wait_for=[first])
        third = note.submit("third", wait_for=second)
        bad = note.submit("never", wait_for=[fails.submit()])
        fine = note.submit("fine", wait_for=[third, allow_failure(bad)])
        fine.wait()
        return bad.state.name

    assert in_a_flow(body) == "NotReady"
    assert order in (["first", "second", "third"], ["first", "second", "third", "fine"])


def test_a_direct_call_waits_for_futures_too() -> None:
    assert in_a_flow(lambda: echo([echo.submit(1)])) == [1]
    with pytest.raises(UpstreamFailedError):
        in_a_flow(lambda: echo(fails.submit()))
    with pytest.raises(UpstreamFailedError):
        in_a_flow(lambda: echo(wait_for=[fails.submit()]))


def test_states_are_inputs_like_futures() -> None:
    def body() -> Any:
        return echo(echo(5, return_state=True))

    assert in_a_flow(body) == 5


def test_map_spreads_iterables_and_repeats_the_rest() -> None:
    @task
    def join(*parts: Any, **named: Any) -> Any:
        return (*parts, named)

    def body() -> Any:
        return join.map(
            range(2), "ab", 3, unmapped([7, 8]), echo.map([5, 6]), {"k": 1, "l": 2}, n=iter("xy")
        ).result()

    assert in_a_flow(body) == [
        (0, "ab", 3, [7, 8], 5, "k", {"n": "x"}),
        (1, "ab", 3, [7, 8], 6, "l", {"n": "y"}),
    ]


def test_map_over_a_future_maps_over_its_result() -> None:
    assert in_a_flow(lambda: echo.map(echo.submit([1, 2])).result()) == [1, 2]


def test_map_with_failed_inputs() -> None:
    def body() -> Any:
        inputs = [echo.submit(1), fails.submit()]
        plain = echo.map(inputs, return_state=True)
        allowed = echo.map(allow_failure(inputs)).result()
        return [state.name for state in plain], allowed

    names, allowed = in_a_flow(body)
    assert names == ["Completed", "NotReady"]
    assert allowed[0] == 1
    assert isinstance(allowed[1], ZeroDivisionError)


def test_map_over_nothing_gives_nothing() -> None:
    assert in_a_flow(lambda: echo.map([]).result()) == []


def test_map_without_an_iterable_or_with_different_lengths_is_refused() -> None:
    @task
    def two(a: Any, b: Any) -> None:
        pass

    def body() -> None:
        with pytest.raises(ParameterBindError, match="at least one list"):
            echo.map(1)
        with pytest.raises(ParameterBindError, match=r"\{'1': 2, 'b': 3\}"):
            two.map([1, 2], b=[1, 2, 3])

    in_a_flow(body)


def test_results_come_in_order_and_as_completed_as_they_end() -> None:
    @task
    def sleep(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def body() -> Any:
        futures = sleep.map([0.4, 0.0, 0.2])
        early = [future.result() for future in as_completed(futures)]
        return early, futures.result()

    early, ordered = in_a_flow(body)
    assert early == [0.0, 0.2, 0.4]
    assert ordered == [0.4, 0.0, 0.2]


def test_waiting_ends_after_the_time_out() -> None:
    go = threading.Event()

    @task
    def blocked() -> None:
        go.wait(20)

    def body() -> Any:
        quick, slow = echo.submit(1), blocked.submit()
        quick.wait()
        done, not_done = wait([quick, slow], timeout=0.05)
        slow.wait(0.05)
        with pytest.raises(TimeoutError, match=r"blocked-1 has not ended within 0\.05 s"):
            slow.result(timeout=0.05)
        with pytest.raises(TimeoutError, match="1 of 2 runs"):
            list(as_completed([quick, slow], timeout=0.05))
        go.set()
        return done == {quick}, not_done == {slow}, slow.done()

    assert in_a_flow(body) == (True, True, False)


def test_what_has_ended_and_what_has_not_are_two_sets_that_have_names() -> None:
    def body() -> Any:
        ended = echo.submit(1)
        waited = wait([ended])
        return waited == ({ended}, set()), waited.done == {ended}, waited.not_done, repr(waited)

    *told, shown = in_a_flow(body)
    assert told == [True, True, set()]
    assert shown.startswith("DoneAndNotDoneFutures(done={<PrefectFuture echo-")


def test_waiting_again_and_again_leaves_nothing_behind() -> None:
    go = threading.Event()

    @task
    def blocked() -> None:
        go.wait(20)

    def body() -> Any:
        future = blocked.submit()
        for _ in range(20):
            wait([future], timeout=0.001)
        left = list(future._callbacks or ())
        go.set()
        return left

    assert in_a_flow(body) == []


def test_futures_can_be_awaited() -> None:
    @flow
    async def body() -> Any:
        future = echo.submit(1)
        failed = fails.submit()
        await failed.wait_async()
        return await future.result_async(), failed.state.name

    assert asyncio.run(body()) == (1, "Failed")


def test_a_callback_gets_the_future_also_when_it_comes_late() -> None:
    def body() -> Any:
        seen: list[Any] = []
        future = echo.submit(1)
        future.wait()
        future.add_done_callback(seen.append)
        return seen == [future]

    assert in_a_flow(body)


def test_a_future_cannot_be_pickled_and_says_what_to_do() -> None:
    def body() -> None:
        with pytest.raises(TypeError, match="pass its result instead"):
            pickle.dumps(echo.submit(1))

    in_a_flow(body)


def test_submit_and_map_outside_of_a_flow_say_what_to_do() -> None:
    with pytest.raises(MissingContextError, match=r"echo.submit\(\) needs a running flow"):
        echo.submit(1)
    with pytest.raises(MissingContextError, match=r"echo.map\(\)"):
        echo.map([1])


def test_a_task_submits_to_the_runner_of_its_flow() -> None:
    @task
    def parent() -> Any:
        return echo.submit("child").result()

    assert in_a_flow(lambda: parent.submit().result()) == "child"


@pytest.mark.parametrize(
    ("make", "kind", "question"),
    [
        (Completed, StateType.COMPLETED, "is_completed"),
        (Failed, StateType.FAILED, "is_failed"),
        (Crashed, StateType.CRASHED, "is_crashed"),
        (Cancelled, StateType.CANCELLED, "is_cancelled"),
        (Pending, StateType.PENDING, "is_pending"),
    ],
)
def test_states_answer_questions(make: Any, kind: StateType, question: str) -> None:
    state = make(message="why")
    assert state.type is kind
    assert state.type == kind.value
    assert getattr(state, question)()
    assert state.name == kind.value.capitalize()
    assert state.timestamp.tzinfo is not None
    assert state.id == state.id
    assert state.is_final() is (make is not Pending)
    copy = pickle.loads(pickle.dumps(state))
    assert (copy.type, copy.name, copy.message) == (state.type, state.name, "why")


def test_a_state_that_says_nothing_raises_its_message() -> None:
    with pytest.raises(FailedRun, match="The run ended as Failed: no rows"):
        Failed(message="no rows").result()
    with pytest.raises(UnfinishedRun, match="The run has not ended yet: it is Pending"):
        Pending().result()
    assert str(State(StateType.FAILED, message="x")) == "Failed('x')"


def test_a_state_is_awaited_where_code_is_async() -> None:
    async def body() -> Any:
        return await Completed(data=1).result(), await Completed(data=2).aresult()

    assert asyncio.run(body()) == (1, 2)
