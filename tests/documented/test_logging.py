"""Logging. The run's attributes, silent loggers: tests/authoring/test_functions, test_flows."""

from __future__ import annotations

import logging
import multiprocessing
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from leasehold import flow, get_run_logger, tags, task
from leasehold.context import FlowRunContext, current_tags, with_context
from leasehold.runtime import flow_run, task_run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def work(item: int) -> int:
    """Log as the run that called, wherever this runs."""
    get_run_logger().info("item %d of %s", item, flow_run.flow_name)
    return 2 * item


def tell(_: int) -> Any:
    """Tell what is known of the run that called."""
    return task_run.name, task_run.task_name, flow_run.flow_name, sorted(current_tags())


@task
def in_threads(items: list[int]) -> list[int]:
    contexts = [copy_context() for _ in items]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda context, item: context.run(work, item), contexts, items))


@task(task_run_name="pool")
def in_processes() -> Any:
    with tags("label"), multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(with_context(tell), [1])[0]


def test_what_an_author_logs_is_the_message_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @task
    def inner() -> None:
        get_run_logger().info("from the task")
        get_run_logger(FlowRunContext.get(), team="a").info("from the task for the flow")

    @flow
    def outer() -> None:
        get_run_logger().info("from the flow at 100%")
        inner()

    caplog.set_level(logging.INFO)
    outer()
    assert "from the flow at 100%" in caplog.messages
    assert "from the task" in caplog.messages
    (line,) = [one for one in caplog.records if one.getMessage().endswith("for the flow")]
    assert (line.name, line.__dict__["team"]) == ("leasehold.flow_runs", "a")


def test_threads_of_a_task_log_as_the_task(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert flow(name="threaded")(lambda: in_threads([1, 2]))() == [2, 4]
    lines = [one for one in caplog.records if one.getMessage() == "item 2 of threaded"]
    assert [one.__dict__["task_name"] for one in lines] == ["in_threads"]


def test_processes_of_a_task_know_the_task() -> None:
    told = flow(name="pooled")(lambda: in_processes())()  # noqa: PLW0108 - a flow is no method
    assert told == ("pool", "in_processes", "pooled", ["label"])


def console_of(script: Path, **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(script)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return [line.split("|", 1)[-1].strip() for line in done.stderr.splitlines()] + [done.stdout]


def test_the_console_names_the_run_and_settings_say_what_is_seen(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import logging
            from leasehold import flow, get_run_logger, task

            @task(task_run_name="load")
            def body():
                get_run_logger().debug("a detail")
                logging.getLogger("mylib").info("from a library")
                print("printed")

            @flow(flow_run_name="nightly")
            def etl():
                body()

            etl()
        """)
    )
    home = {"HOME": str(tmp_path), "LEASEHOLD_HOME": str(tmp_path)}
    quiet = console_of(script, **home)
    assert "INFO    | Flow run 'nightly': Started." in quiet
    assert quiet[-1] == "printed\n"
    assert not any("detail" in line or "library" in line for line in quiet)
    loud = console_of(
        script,
        **home,
        PREFECT_LOGGING_LEVEL="debug",
        PREFECT_LOGGING_EXTRA_LOGGERS="mylib,other",
        PREFECT_LOGGING_LOG_PRINTS="true",
    )
    assert "DEBUG   | Task run 'load': a detail" in loud
    assert "INFO    | mylib: from a library" in loud
    assert "INFO    | Task run 'load': printed" in loud
    assert loud[-1] == ""


def test_prints_of_all_runs_may_be_logged_but_a_run_may_refuse(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_LOG_PRINTS", "1")

    @task
    def says(word: str) -> None:
        print(word)  # noqa: T201 - what it is for

    @flow(log_prints=False)
    def refuses() -> None:
        says("to the terminal")

    with caplog.at_level(logging.INFO):
        says("to the log")
        refuses()
    assert "to the log" in caplog.messages
    assert capsys.readouterr().out == "to the terminal\n"
