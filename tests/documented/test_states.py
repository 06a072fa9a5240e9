"""States that code makes, and the last state of a flow. Questions: tests/authoring/test_futures."""

from __future__ import annotations

from typing import Any

import pytest

from leasehold import allow_failure, flow, task
from leasehold.exceptions import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    LeaseholdError,
    PrefectException,
    UpstreamFailedError,
)
from leasehold.states import Cancelled, Completed, Crashed, Failed, Running


def _toggle(fail: bool) -> Any:  # noqa: FBT001 - a parameter of a flow author's
    return Failed(message="told to fail") if fail else Completed(message="told to succeed")


# What may be a state or not is nothing that types could say.
toggle: Any = task(name="toggle")(_toggle)


@task
def good(value: Any = 1) -> Any:
    return value


@task
def bad() -> int:
    raise ZeroDivisionError("bad")


def test_a_task_that_returns_a_state_gives_it_to_its_caller() -> None:
    assert toggle(fail=True).is_failed()
    assert toggle(fail=False).message == "told to succeed"
    assert toggle(fail=True, return_state=True).message == "told to fail"


def test_a_flow_fails_when_one_of_the_states_it_gives_has_failed() -> None:
    both: Any = flow(lambda: (toggle(fail=True), toggle(fail=False)))

    assert [state.is_completed() for state in both()] == [False, True]
    state = both(return_state=True)
    assert (state.is_failed(), state.message) == (True, "1 of its 2 results failed.")


def test_a_flow_that_raises_fails_and_one_that_catches_does_not() -> None:
    raising: Any = flow(lambda: bad())  # noqa: PLW0108 - a flow is no method of a task
    tolerant: Any = flow(lambda: bad(return_state=True).name)
    assert raising(return_state=True).is_failed()
    assert tolerant(return_state=True).is_completed()
    assert tolerant() == "Failed"


def test_a_flow_says_itself_how_it_ended_whatever_became_of_its_tasks() -> None:
    def body() -> Any:
        ending = good.submit(return_state=True)
        bad.submit()
        if ending.result() == 1:
            return Completed(message="good enough", data="the result")
        return Failed(message="never")

    strict: Any = flow(body)
    state = strict(return_state=True)
    assert (state.is_completed(), state.message) == (True, "good enough")
    assert strict() == "the result"


def test_a_state_may_have_a_name_of_its_own() -> None:
    def body(*, work: bool) -> Any:
        return Completed(name="Done") if work else Completed(message="no work", name="Skipped")

    idle: Any = flow(body)
    state = idle(work=False, return_state=True)
    assert (state.name, state.type.value) == ("Skipped", "COMPLETED")
    assert idle(work=False) is None


@pytest.mark.parametrize("made", [Failed(message="no"), Cancelled(message="no"), Running()])
def test_a_state_that_is_no_success_is_raised_by_the_flow(made: Any) -> None:
    with pytest.raises(LeaseholdError, match="no"):
        flow(lambda: made)()


@pytest.mark.parametrize(
    ("made", "kind", "what"),
    [
        (Failed(message="no rows"), FailedRun, "ended as Failed: no rows"),
        (Cancelled(), CancelledRun, r"ended as Cancelled\."),
        (Crashed(name="Lost", message="gone"), CrashedRun, "ended as Lost: gone"),
    ],
)
def test_a_run_that_says_it_is_no_success_is_named_in_an_error_of_its_kind(
    made: Any, kind: type[PrefectException], what: str
) -> None:
    with pytest.raises(kind, match=f"Run 'nightly' {what}") as caught:
        flow(flow_run_name="nightly")(lambda: made)()
    assert caught.value.run == "nightly"  # type: ignore[attr-defined] # of these kinds


def test_states_of_tasks_are_inputs_of_others() -> None:
    @flow
    def chain() -> Any:
        return good(good(5, return_state=True)), good.submit(good.submit(6)).result()

    assert chain() == (5, 6)


def test_a_failed_input_is_refused_unless_it_is_allowed() -> None:
    @flow
    def chain() -> Any:
        return type(good(allow_failure(bad.submit()))).__name__

    assert chain() == "ZeroDivisionError"
    with pytest.raises(UpstreamFailedError):
        flow(lambda: good(bad.submit()))()


def test_the_exception_is_the_result_where_failure_is_no_error() -> None:
    @flow
    def lenient() -> Any:
        future = bad.submit()
        value = future.result(raise_on_failure=False)
        return {"failed": future.state.is_failed(), "value": repr(value)}

    assert lenient() == {"failed": True, "value": "ZeroDivisionError('bad')"}
