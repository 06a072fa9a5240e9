"""Hooks. Which state calls which, order, failing hooks: tests/authoring/test_task_options."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from leasehold import Flow, Task, flow, task
from leasehold.client.schemas.objects import FlowRun, TaskRun
from leasehold.logging.loggers import flow_run_logger, task_run_logger

if TYPE_CHECKING:
    from leasehold.states import State


def test_a_hook_may_be_bound_to_values_and_given_to_a_copy() -> None:
    seen: dict[str, Any] = {}

    def note(task: Any, run: Any, state: Any, **more: Any) -> None:
        seen.update(state=state, **more)

    @task
    def fails() -> None:
        raise ValueError("no")

    @flow
    def tolerant(day: str = "monday") -> Any:
        watched = fails.with_options(on_failure=[partial(note, day=day)])
        return "done", watched(return_state=True)

    _, state = tolerant()
    assert seen == {"day": "monday", "state": state}
    assert fails.on_failure_hooks == []


def test_hooks_know_the_run_and_may_log_for_it(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []

    def of_task(task: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
        told.append((task.name, type(run) is TaskRun, run.state is state, sorted(run.tags)))
        task_run_logger(run, task).info("the task is %s", state.name)

    def of_flow(flow: Flow[..., Any], run: FlowRun, state: State[Any]) -> None:
        told.append((flow.name, type(run) is FlowRun, run.state is state, run.parameters))
        assert run.expected_start_time == run.start_time
        flow_run_logger(run, flow).info("the flow is %s", state.name)

    @task(tags=["label"], on_completion=[of_task])
    def work() -> None:
        pass

    @flow(flow_run_name="nightly", on_completion=[of_flow])
    def etl(day: int) -> None:
        work()

    with caplog.at_level(logging.INFO):
        etl(3)
    assert told == [("work", True, True, ["label"]), ("etl", True, True, {"day": 3})]
    lines = {one.getMessage(): one for one in caplog.records}
    assert lines["the task is Completed"].__dict__["flow_run_name"] == "nightly"
    assert lines["the flow is Completed"].name == "leasehold.flow_runs"


def test_hooks_of_a_failed_flow_are_called_once_after_its_retries() -> None:
    told = []

    @flow(retries=1)
    def fails() -> None:
        raise ValueError("no")

    @fails.on_failure
    def tell(_: Any, run: Any, state: Any) -> None:
        told.append((run.run_count, state.message))

    with pytest.raises(ValueError, match="no"):
        fails()
    assert told == [(2, "ValueError: no")]
