"""Ported imports, and tests that were written for Prefect. Our own kit: tests/testing."""

from __future__ import annotations

import importlib
import os

import pytest

from leasehold import alias, flow, get_client, get_run_logger, task
from leasehold.logging import disable_run_logger
from leasehold.testing.utilities import prefect_test_harness


@task(tags=["database"])
def answer() -> int:
    get_run_logger().info("answering")
    return 42


@flow
def ask() -> int:
    return answer()


def limits() -> list[str]:
    with get_client(sync_client=True) as client:
        return [limit.tag for limit in client.read_concurrency_limits(10, 0)]


def test_a_harness_keeps_limits_and_slots_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    home = os.environ["LEASEHOLD_HOME"]
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("database", 0)  # nothing could run under it
    with prefect_test_harness(server_startup_timeout=60):
        assert limits() == []
        assert ask() == 42
        with get_client(sync_client=True) as client:
            client.create_concurrency_limit("mine", 1)
    assert limits() == ["database"]
    assert os.environ["LEASEHOLD_HOME"] == home
    assert "PREFECT_API_URL" not in os.environ


def test_a_task_is_tested_as_the_function_that_it_is() -> None:
    with disable_run_logger():
        assert answer.fn() == 42


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("cache_policies", ["NO_CACHE", "NONE"]),
        ("client.orchestration", ["PrefectClient", "SyncPrefectClient", "get_client"]),
        ("client.schemas", ["FlowRun", "State", "StateType", "TaskRun"]),
        ("client.schemas.actions", ["GlobalConcurrencyLimitCreate"]),
        ("client.schemas.objects", ["ConcurrencyLimit", "FlowRun", "State", "TaskRun"]),
        ("client.schemas.responses", ["GlobalConcurrencyLimitResponse"]),
        ("concurrency.asyncio", ["concurrency", "rate_limit"]),
        ("concurrency.sync", ["concurrency", "rate_limit"]),
        ("context", ["FlowRunContext", "TaskRunContext", "get_run_context", "tags"]),
        ("exceptions", ["CancelledRun", "CrashedRun", "FailedRun", "MappingLengthMismatch"]),
        ("exceptions", ["MappingMissingIterable", "MissingContextError", "MissingResult"]),
        ("exceptions", ["ObjectAlreadyExists", "ObjectNotFound", "ParameterBindError"]),
        ("exceptions", ["ParameterTypeError", "PrefectException", "UnfinishedRun"]),
        ("exceptions", ["UpstreamTaskError"]),
        ("flows", ["Flow", "flow"]),
        ("futures", ["PrefectFuture", "PrefectFutureList", "as_completed", "wait"]),
        ("logging", ["disable_run_logger", "get_logger", "get_run_logger"]),
        ("logging.loggers", ["flow_run_logger", "get_run_logger", "task_run_logger"]),
        ("runtime.flow_run", ["parameters"]),
        ("states", ["Cancelled", "Completed", "Failed", "State", "StateType"]),
        ("task_runners", ["ConcurrentTaskRunner", "ProcessPoolTaskRunner", "ThreadPoolTaskRunner"]),
        ("tasks", ["Task", "exponential_backoff", "task"]),
        ("testing.utilities", ["prefect_test_harness"]),
        ("utilities.annotations", ["allow_failure", "opaque", "quote", "unmapped"]),
    ],
)
def test_changing_the_first_word_of_an_import_is_the_whole_port(
    module: str, names: list[str]
) -> None:
    ours = importlib.import_module(f"leasehold.{module}")
    alias.install()
    try:
        theirs = importlib.import_module(f"prefect.{module}")
        for name in names:
            assert getattr(theirs, name) is getattr(ours, name)
    finally:
        alias.remove()


def test_files_may_compare_the_version_of_prefect() -> None:
    alias.install()
    try:
        prefect = importlib.import_module("prefect")
        assert prefect.__version__ == alias.PREFECT_VERSION
        assert int(prefect.__version__.split(".")[0]) == 3
    finally:
        alias.remove()
