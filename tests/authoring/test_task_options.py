"""The options of @task: what each does, and what is refused."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from leasehold import exponential_backoff, flow, task
from leasehold.exceptions import (
    OptionError,
    ParameterBindError,
    RunTimeoutError,
    UnsupportedFeatureError,
    UnsupportedOptionError,
)
from leasehold.runtime import flow_run, task_run
from leasehold.states import Completed, Failed


def failing(times: int, result: Any = "done") -> Any:
    """Give a function that raises so often, and then gives a result."""
    tries = iter(range(times + 1))

    def body() -> Any:
        if next(tries) < times:
            raise OSError("not yet")
        return result

    return body


def test_a_bare_decorator_and_one_with_options_make_the_same() -> None:
    @task
    def bare() -> int:
        """Say one."""
        return 1

    @task()
    def called() -> int:
        """Say one."""
        return 1

    assert (bare(), called()) == (1, 1)
    assert bare.name == "bare"
    assert bare.description == called.description == "Say one."
    assert bare.fn() == 1


def test_retries_run_the_body_again() -> None:
    assert task(retries=2)(failing(2))() == "done"
    with pytest.raises(OSError, match="not yet"):
        task(retries=1)(failing(2))()


def test_each_retry_has_its_own_pause_and_the_last_one_repeats() -> None:
    delays = task(retries=4, retry_delay_seconds=[1, 10])(print).delays
    assert [delays(failures) for failures in (1, 2, 3, 4)] == [1, 10, 10, 10]


def test_exponential_backoff_doubles() -> None:
    delays = task(retries=3, retry_delay_seconds=exponential_backoff(10))(print).delays
    assert [delays(failures) for failures in (1, 2, 3)] == [10, 20, 40]


def test_jitter_varies_a_pause_within_its_share() -> None:
    delays = task(retries=1, retry_delay_seconds=10, retry_jitter_factor=0.5)(print).delays
    pauses = [delays(1) for _ in range(200)]
    assert 5 <= min(pauses) < max(pauses) <= 15


@pytest.mark.parametrize("wanted", [True, False])
def test_a_condition_decides_whether_to_retry(wanted: bool) -> None:  # noqa: FBT001 - a parameter
    asked = []

    def condition(subject: Any, run: Any, state: Any) -> bool:
        asked.append((subject.name, run.run_count, type(state.data)))
        return wanted

    state = task(name="flaky", retries=1, retry_condition_fn=condition)(failing(1))(
        return_state=True
    )
    assert state.is_completed() is wanted
    assert asked == [("flaky", 1, OSError)]


def test_an_async_condition_is_awaited() -> None:
    async def condition(*_: Any) -> bool:
        await asyncio.sleep(0)
        return True

    assert task(retries=1, retry_condition_fn=condition)(failing(1))() == "done"


def test_names_of_runs_come_from_a_template() -> None:
    @task(task_run_name="load-{path}-of-{table:>8}")
    def load(path: str, table: str = "orders") -> Any:
        return task_run.name

    assert load("a.csv") == "load-a.csv-of-  orders"


def test_names_of_runs_come_from_a_function() -> None:
    @task(task_run_name=lambda parameters: f"row {parameters['row']} of {flow_run.flow_name}")
    def load(row: int) -> Any:
        return task_run.name

    @flow(name="etl")
    def etl() -> tuple[Any, Any]:
        return load(3), load.submit(4).result()

    assert etl() == ("row 3 of etl", "row 4 of etl")


def test_a_template_sees_results_instead_of_futures() -> None:
    @task
    def first() -> int:
        return 7

    @task(task_run_name="second-{value}")
    def second(value: int) -> Any:
        return task_run.name

    @flow
    def chain() -> Any:
        return second.submit(first.submit()).result()

    assert chain() == "second-7"


def test_a_function_that_gives_no_name_fails_the_run_and_is_named() -> None:
    @task(task_run_name=lambda: str(1 / 0))
    def body() -> None:
        pass

    with pytest.raises(OptionError, match=r"Task 'body': task_run_name gave no name: ZeroDiv"):
        body()


def test_a_time_limit_interrupts_a_sync_body_in_the_main_thread_even_while_it_sleeps() -> None:
    cleaned = []

    @task(timeout_seconds=0.2)
    def slow() -> None:
        try:
            time.sleep(30)
        finally:
            cleaned.append(True)

    began = time.monotonic()
    with pytest.raises(RunTimeoutError, match=r"slow-\d+ took longer than its timeout of 0.2 s"):
        slow()
    assert time.monotonic() - began < 10
    assert cleaned == [True]


def test_a_time_limit_interrupts_a_sync_body_in_a_worker_at_its_next_line() -> None:
    @task(timeout_seconds=0.2)
    def slow() -> None:
        while True:
            time.sleep(0.01)

    @flow
    def waits() -> Any:
        return {"state": slow.submit(return_state=True)}

    state = waits()["state"]
    assert state.name == "TimedOut"
    assert state.is_failed()
    assert isinstance(state.outcome(raise_on_failure=False), TimeoutError)


def test_a_program_may_be_traced_after_a_time_limit_has_interrupted_a_body() -> None:
    script = """
import sys, time
from leasehold import flow, task

@task(timeout_seconds=0.2)
def slow():
    while True:
        time.sleep(0.01)

@flow
def waits():
    return slow.submit(return_state=True).name

name = waits()
sys.settrace(lambda *_: None)  # as debuggers and coverage do
print((lambda: name)())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "TimedOut\n"


def test_a_call_that_cannot_be_interrupted_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    @task(timeout_seconds=0.2)
    def blocks() -> None:
        threading.Event().wait(2)

    @flow
    def waits() -> Any:
        return blocks.submit(return_state=True).name

    assert waits() == "TimedOut"
    assert "cannot be interrupted from outside" in caplog.text


def test_a_time_limit_cancels_an_async_body() -> None:
    cleaned = []

    @task(timeout_seconds=0.2)
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append(True)

    with pytest.raises(RunTimeoutError):
        asyncio.run(slow())
    assert cleaned == [True]


def test_a_body_may_raise_a_timeout_of_its_own() -> None:
    @task(timeout_seconds=30)
    async def body() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own") as caught:
        asyncio.run(body())
    assert not isinstance(caught.value, RunTimeoutError)


def test_a_body_that_was_too_slow_is_retried() -> None:
    tries = []

    @task(timeout_seconds=0.2, retries=1)
    def slow_once() -> int:
        tries.append(1)
        if len(tries) == 1:
            time.sleep(30)
        return len(tries)

    assert slow_once() == 2


def test_prints_go_to_the_log_when_the_task_or_its_flow_says_so(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    @task
    def inherits() -> None:
        print("from", "a task", sep=": ")  # noqa: T201 - what it is for

    @task(log_prints=False)
    def refuses() -> None:
        print("to the terminal")  # noqa: T201 - what it is for

    @flow(log_prints=True)
    def loud() -> None:
        inherits()
        refuses()

    with caplog.at_level(logging.INFO):
        loud()
    print("outside")  # noqa: T201 - what it is for
    assert "from: a task" in caplog.text
    assert capsys.readouterr().out == "to the terminal\noutside\n"


def test_hooks_are_told_of_the_states_that_concern_them() -> None:
    told: list[tuple[str, str, str]] = []

    def hook(kind: str) -> Any:
        return lambda subject, run, state: told.append((kind, run.name, state.name))

    @task(
        task_run_name="{text}",
        retries=1,
        on_running=[hook("running")],
        on_completion=[hook("completion")],
        on_failure=[hook("failure")],
    )
    def body(text: str) -> None:
        if text == "bad":
            raise ZeroDivisionError

    body("good")
    assert told == [("running", "good", "Running"), ("completion", "good", "Completed")]
    told.clear()
    body("bad", return_state=True)
    assert told == [
        ("running", "bad", "Running"),
        ("running", "bad", "Retrying"),
        ("failure", "bad", "Failed"),
    ]


def test_hooks_may_be_added_with_decorators_and_may_be_async() -> None:
    told = []

    @task
    def body() -> None:
        pass

    @body.on_completion
    async def tell(subject: Any, run: Any, state: Any) -> None:
        await asyncio.sleep(0)
        told.append((subject.name, run.name, state.type.value))

    body()
    assert told == [("body", "body-1", "COMPLETED")]


def test_a_hook_that_fails_is_told_of_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def hook(*_: Any) -> None:
        raise ZeroDivisionError("in the hook")

    assert task(on_completion=[hook])(lambda: 1)() == 1
    assert "The hook " in caplog.text
    assert "in the hook" in caplog.text


def test_hooks_run_before_whoever_waits_goes_on() -> None:
    told = []

    def hook(*_: Any) -> None:
        time.sleep(0.1)
        told.append(1)

    @task(on_completion=[hook])
    def body() -> None:
        pass

    @flow
    def waits() -> int:
        body.submit().wait()
        return len(told)

    assert waits() == 1


def test_with_options_changes_a_copy() -> None:
    @task(name="load", tags=["database"], retries=3)
    def load() -> None:
        pass

    other = load.with_options(tags=["api"], timeout_seconds=5)
    assert (other.name, *other.tags, other.retries) == ("load", "api", 3)
    assert (*load.tags, load.timeout_seconds) == ("database", None)
    with pytest.raises(UnsupportedOptionError, match="'color'"):
        load.with_options(color="red")


def test_a_body_says_how_it_ended_by_returning_a_state() -> None:
    five: Any = task(lambda: Completed(data=5))
    assert five().result() == 5
    assert flow(lambda: [five.submit().result()])() == [5]
    state = task(lambda: Failed(message="no rows"))(return_state=True)
    assert state.is_failed()
    with pytest.raises(Exception, match="no rows"):
        state.result()


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("cache_policy", object(), "lru_cache"),
        ("cache_key_fn", print, "lru_cache"),
        ("persist_result", True, "file or a database"),
        ("on_rollback", [print], "on_failure"),
        ("asset_deps", ["x"], "no assets"),
        ("colour", "red", "It knows: name, description, tags"),
    ],
)
def test_what_is_not_offered_is_named_at_decoration(option: str, value: Any, advice: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=advice) as caught:
        task(**{option: value})
    assert caught.value.option == option
    assert option in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("persist_result", False),
        ("persist_result", None),
        ("cache_policy", None),
        ("cache_result_in_memory", True),
        ("refresh_cache", False),
    ],
)
def test_an_option_that_asks_for_what_happens_anyway_is_accepted(option: str, value: Any) -> None:
    assert task(**{option: value})(lambda: 1)() == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("retries", -1),
        ("retries", 1.5),
        ("retries", True),
        ("retry_delay_seconds", -1),
        ("retry_delay_seconds", [1, -1]),
        ("retry_delay_seconds", float("nan")),
        ("retry_jitter_factor", -0.1),
        ("retry_condition_fn", 3),
        ("retry_condition_fn", lambda: True),
        ("retry_delay_seconds", lambda: 1),
        ("timeout_seconds", -1),
        ("name", 3),
        ("description", 3),
        ("version", 2),
        ("log_prints", "yes"),
        ("task_run_name", 3),
        ("task_run_name", "load-{file}"),
        ("task_run_name", "load-{path"),
        ("task_run_name", "load-{}"),
        ("on_failure", print),
        ("on_failure", ["not a function"]),
        ("on_lease_lost", "panic"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_at_decoration(option: str, value: Any) -> None:
    def load(path: str) -> None:
        pass

    with pytest.raises(OptionError, match="Task 'load'") as caught:
        task(**{option: value})(load)
    assert caught.value.option == option
    assert option in str(caught.value)


def test_a_time_limit_of_0_is_none() -> None:
    assert task(timeout_seconds=0)(print).timeout_seconds is None
    assert flow(timeout_seconds=0)(print).timeout_seconds is None


def test_reserved_parameters_are_refused() -> None:
    def body(wait_for: int) -> None:
        pass

    with pytest.raises(OptionError, match="'wait_for'"):
        task(body)


def test_arguments_that_do_not_fit_are_refused_before_the_run() -> None:
    @task(retries=5)
    def load(path: str) -> None:
        pass

    with pytest.raises(
        ParameterBindError, match="Task 'load': missing a required argument: 'path'"
    ):
        load()  # type: ignore[call-overload] # what is tested

    @flow
    def submits() -> None:
        with pytest.raises(ParameterBindError, match="unexpected keyword argument 'file'"):
            load.submit("a", file=1)

    submits()


@pytest.mark.parametrize("method", ["delay", "serve", "on_commit"])
def test_methods_that_only_prefect_has_say_what_to_do(method: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=method):
        getattr(task(print), method)
    assert not hasattr(task(print), method)


def test_a_class_is_no_task() -> None:
    with pytest.raises(TypeError, match="@task is for functions"):
        task(int)


def test_a_program_that_uses_sigalrm_itself_keeps_it() -> None:
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:

        @task(timeout_seconds=0.2)
        def slow() -> None:
            signal.raise_signal(signal.SIGALRM)
            while True:
                time.sleep(0.01)

        with pytest.raises(RunTimeoutError):
            slow()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert rung == [1]


def test_a_time_limit_inside_of_another_one_ends_the_inner_run_alone() -> None:
    @task(timeout_seconds=0.2)
    def inner() -> None:
        time.sleep(30)

    @task(timeout_seconds=30)
    def outer() -> str:
        state = inner(return_state=True)
        return state.name

    assert outer() == "TimedOut"
