"""@flow: parameters, options, results, subflows."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated, Any

import pydantic
import pytest

from leasehold import flow, get_run_logger, tags, task
from leasehold.exceptions import (
    InvalidTagError,
    OptionError,
    ParameterBindError,
    ParameterTypeError,
    RunTimeoutError,
    UnsupportedFeatureError,
    UnsupportedOptionError,
)
from leasehold.runtime import flow_run, task_run
from leasehold.states import Completed, Failed, State
from leasehold.task_runners import ThreadPoolTaskRunner


class Order(pydantic.BaseModel):
    """Somebody's order."""

    number: int


@task
def double(number: int) -> int:
    return 2 * number


@task
def fails() -> int:
    raise ZeroDivisionError("always")


def test_parameters_are_checked_and_converted() -> None:
    def shop(count: int, order: Order, *more: int, note: str = "", **rest: float) -> Any:
        return count, order, more, note, rest

    shopping: Any = flow(shop)
    result = shopping("3", {"number": "7"}, "4", note="x", price="1.5")
    assert result == (3, Order(number=7), (4,), "x", {"price": 1.5})


def test_a_parameter_of_the_wrong_type_is_named() -> None:
    def count_it(count: int) -> None:
        pass

    shop: Any = flow(name="shop")(count_it)

    with pytest.raises(ParameterTypeError, match=r"Flow 'shop': count: .*valid integer"):
        shop("many")
    with pytest.raises(ParameterTypeError, match=r"Flow 'shop': count: .*valid integer"):
        shop(count="many")


def test_a_value_that_is_refused_is_shown_if_it_is_long_in_part() -> None:
    def sum_up(count: int) -> None:
        pass

    shop: Any = flow(name="shop")(sum_up)

    with pytest.raises(ParameterTypeError) as caught:
        shop("x" * 1000)
    assert caught.value.parameters == ("count",)
    assert "(got 'xxx" in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_value_that_may_be_a_secret_is_not_shown() -> None:
    def sign_in(
        key: Annotated[pydantic.SecretStr, pydantic.Field(min_length=50)], keys: dict[str, int]
    ) -> None:
        pass

    shop: Any = flow(name="shop")(sign_in)

    with pytest.raises(ParameterTypeError) as caught:
        shop("hunter2", {"a": "hunter3"})
    assert "keys.a: Input should be a valid integer" in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    class Local:
        pass

    def body(count: int, thing: Local) -> int:
        return count

    shop: Any = flow(name="shop")(body)
    with pytest.raises(ParameterTypeError, match=r"Flow 'shop': .* thing, 'Local', .* run time"):
        shop(1, Local())
    assert shop.with_options(validate_parameters=False)(1, Local()) == 1


def test_a_method_is_checked_whether_it_was_called_on_the_class_before_or_not() -> None:
    class Shop:
        @flow
        def count(self, number: int) -> int:
            return number

    call: Any = Shop.count
    assert call(Shop(), "1") == 1
    call = Shop().count
    assert call("2") == 2


def test_arguments_that_do_not_fit_are_named() -> None:
    def count_it(count: int) -> None:
        pass

    shop: Any = flow(name="shop")(count_it)

    with pytest.raises(ParameterBindError, match="'count'"):
        shop()


def test_validation_may_be_turned_off() -> None:
    def count_it(count: int) -> Any:
        return count

    shop: Any = flow(validate_parameters=False)(count_it)

    assert shop("many") == "many"


def test_a_flow_without_arguments_does_not_need_pydantic_at_all() -> None:
    @flow
    def plain() -> int:
        return 1

    assert plain() == 1
    assert "_converter" not in vars(plain)


def test_names_of_runs_come_from_a_template_or_a_function() -> None:
    @flow(flow_run_name="etl-{day}")
    def template(day: str) -> Any:
        return flow_run.name

    @flow(flow_run_name=lambda: f"{flow_run.flow_name} of {flow_run.parameters['day']}")
    def function(day: str) -> Any:
        return flow_run.name

    assert template("monday") == "etl-monday"
    assert function("monday") == "function of monday"
    with pytest.raises(OptionError, match=r"Flow 'bad': flow_run_name='{week}' names 'week'"):

        @flow(flow_run_name="{week}")
        def bad(day: str) -> None:
            pass


def test_retries_run_the_whole_flow_again() -> None:
    tries = []

    @flow(retries=2, retry_delay_seconds=0.01)
    def flaky() -> Any:
        tries.append(flow_run.run_count)
        double.submit(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return "done"

    assert flaky() == "done"
    assert tries == [1, 2, 3]


def test_a_time_limit_ends_a_sync_flow_and_its_tasks() -> None:
    @task
    def endless() -> None:
        while True:
            time.sleep(0.01)

    futures = []

    @flow(timeout_seconds=0.3)
    def slow() -> None:
        futures.append(endless.submit())
        futures[0].wait()

    began = time.monotonic()
    state = slow(return_state=True)
    assert time.monotonic() - began < 10
    assert (state.name, state.type.value) == ("TimedOut", "FAILED")
    assert futures[0].state.is_cancelled()


def test_a_time_limit_ends_an_async_flow() -> None:
    @flow(timeout_seconds=0.2)
    async def slow() -> None:
        await asyncio.sleep(30)

    with pytest.raises(RunTimeoutError, match=r"timeout of 0\.2 s"):
        asyncio.run(slow())


def test_hooks_are_told_of_the_states_that_concern_them() -> None:
    told: list[tuple[str, str]] = []

    def hook(kind: str) -> Any:
        return lambda subject, run, state: told.append((kind, state.name))

    every = ["on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed"]

    def raises(error: Any = None) -> None:
        if error is not None:
            raise error

    options: Any = {kind: [hook(kind)] for kind in every}
    body: Any = flow(**options)(raises)

    body(return_state=True)
    body(ValueError(), return_state=True)
    with pytest.raises(KeyboardInterrupt):
        body(KeyboardInterrupt())
    with pytest.raises(SystemExit):
        body(SystemExit())
    assert [one for one in told if one[0] != "on_running"] == [
        ("on_completion", "Completed"),
        ("on_failure", "Failed"),
        ("on_cancellation", "Cancelled"),
        ("on_crashed", "Crashed"),
    ]
    assert told.count(("on_running", "Running")) == 4


def test_a_flow_waits_for_tasks_that_nobody_waited_for() -> None:
    ran = []

    @task
    def late() -> None:
        time.sleep(0.1)
        ran.append(1)

    @flow
    def careless() -> str:
        late.submit()
        return "done"

    assert careless() == "done"
    assert ran == [1]


def test_a_lone_future_gives_its_state_and_its_failure() -> None:
    four: Any = flow(lambda: double.submit(2))
    assert four().result() == 4
    assert four(return_state=True).result().result() == 4
    with pytest.raises(ZeroDivisionError):
        flow(lambda: fails.submit())()  # noqa: PLW0108 - a flow is no method of another task


def test_several_futures_become_states_and_a_failed_one_fails_the_run() -> None:
    mixed: Any = flow(lambda: [double.submit(1), fails.submit()])
    first, second = mixed()
    assert (first.outcome(), second.is_failed()) == (2, True)
    state = mixed(return_state=True)
    assert state.is_failed()
    assert "1 of its 2" in state.message
    with pytest.raises(ZeroDivisionError):
        state.result()


def test_the_state_of_a_task_is_a_result_like_any_other() -> None:
    good: Any = flow(lambda: double(2, return_state=True))
    assert good().result() == 4
    both: Any = flow(lambda: (double(2, return_state=True), fails(return_state=True)))
    assert [state.name for state in both()] == ["Completed", "Failed"]
    assert both(return_state=True).is_failed()


def test_a_failed_task_that_nobody_asked_for_does_not_fail_the_flow() -> None:
    @flow
    def tolerant() -> int:
        fails.submit()
        return 3

    assert tolerant() == 3


def test_a_flow_says_how_it_ended_by_returning_a_state() -> None:
    nine: Any = flow(lambda: Completed(data=9))
    assert nine() == 9
    state = flow(lambda: Failed(message="no rows"))(return_state=True)
    assert (state.name, state.message) == ("Failed", "no rows")


def test_a_subflow_has_its_own_runner_and_knows_its_parents() -> None:
    @flow(name="inner", task_runner=ThreadPoolTaskRunner(max_workers=2))
    def inner(value: int) -> Any:
        return value, flow_run.parent_flow_run_id, flow_run.root_flow_run_id

    @flow
    def outer() -> Any:
        value: Any = double.submit(1)
        return flow_run.id, inner(value)

    own, (value, parent, root) = outer()
    assert value == 2  # a future as the argument of a subflow is its result
    assert parent == root == own


def test_tags_reach_the_tasks_of_a_subflow() -> None:
    @task
    def tell() -> Any:
        return task_run.tags

    @flow
    def inner() -> Any:
        return tell.submit().result()

    @flow
    def outer() -> Any:
        with tags("outer"):
            return inner()

    assert outer() == ["outer"]


def test_async_flows_await_async_tasks_and_call_sync_ones() -> None:
    @task
    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @flow
    async def mixed() -> Any:
        state = await later(3, return_state=True)
        submitted = later.submit(4)
        return await later(1), double(1), await state.result(), submitted.result()

    assert asyncio.run(mixed()) == (1, 2, 3, 4)


def test_async_subflows_run_at_the_same_time() -> None:
    @flow
    async def inner(number: int) -> Any:
        await asyncio.sleep(0.2)
        return number, flow_run.parameters["number"]

    @flow
    async def outer() -> Any:
        return await asyncio.gather(*(inner(number) for number in range(10)))

    began = time.monotonic()
    assert asyncio.run(outer()) == [(number, number) for number in range(10)]
    assert time.monotonic() - began < 0.2 * 10


def test_the_run_logger_names_the_run(caplog: pytest.LogCaptureFixture) -> None:
    @flow(flow_run_name="nightly")
    def body() -> None:
        get_run_logger().info("hello %s", "you")

    with caplog.at_level(logging.INFO):
        body()
    (line,) = [one for one in caplog.records if one.getMessage() == "hello you"]
    assert (line.name, line.__dict__["flow_run_name"]) == ("leasehold.flow_runs", "nightly")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", 3),
        ("version", 2),
        ("task_runner", "threads"),
        ("task_runner", dict),
        ("validate_parameters", "no"),
        ("flow_run_name", "etl-{"),
        ("retry_delay_seconds", lambda: 1),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_at_decoration(option: str, value: Any) -> None:
    def etl() -> None:
        pass

    with pytest.raises(OptionError, match=f"Flow 'etl': {option}") as caught:
        flow(**{option: value})(etl)
    assert (caught.value.option, caught.value.value) == (option, value)


@pytest.mark.parametrize(("given", "what"), [(["a"], r"\['a'\]"), ("", "''")])
def test_tags_that_are_no_strings_are_shown(given: Any, what: str) -> None:
    with (
        pytest.raises(InvalidTagError, match=rf"tags\(\): a tag must be .*; got {what}"),
        tags(given),
    ):
        pass
    with pytest.raises(InvalidTagError, match="Task 'load': tags must be a list of strings; got 3"):
        task(name="load", tags=3)(print)  # type: ignore[call-overload] # what is tested


def test_what_is_not_offered_is_named_at_decoration() -> None:
    with pytest.raises(UnsupportedOptionError, match="result_storage"):
        flow(result_storage="s3")  # type: ignore[call-overload] # what is tested
    with pytest.raises(UnsupportedFeatureError, match="cron"):
        flow(print).serve  # noqa: B018 - looking is what fails


def test_a_flow_that_was_cancelled_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    @flow(flow_run_name="nightly")
    def stopped() -> None:
        raise KeyboardInterrupt

    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        stopped()
    *_, last = caplog.records
    assert (last.levelname, last.getMessage()) == (
        "WARNING",
        "Flow run 'nightly': Ended as Cancelled: KeyboardInterrupt",
    )


def test_return_state_never_raises() -> None:
    @flow
    def bad() -> None:
        raise ZeroDivisionError("here")

    state = bad(return_state=True)
    assert isinstance(state, State)
    assert isinstance(state.outcome(raise_on_failure=False), ZeroDivisionError)
    assert "here" in (state.message or "")
