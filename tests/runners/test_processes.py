"""ProcessPoolTaskRunner: bodies in processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from leasehold import concurrency, flow, tags, task
from leasehold.client import get_client
from leasehold.exceptions import (
    DeadlockError,
    LeaseholdError,
    RunTimeoutError,
    SettingsError,
    UnpicklableError,
    WorkerDiedError,
)
from leasehold.task_runners import ProcessPoolTaskRunner
from runners import bodies

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Any:
    yield
    assert multiprocessing.active_children() == []


def in_processes(body: Any, workers: int = 2) -> Any:
    """Run `body` as a flow whose tasks run in processes."""
    return flow(name="in-processes", task_runner=ProcessPoolTaskRunner(workers))(body)()


def test_bodies_run_in_other_processes_which_are_used_again() -> None:
    pids = in_processes(lambda: bodies.pid_of_worker.map(range(12)).result())
    assert os.getpid() not in pids
    assert 1 <= len(set(pids)) <= 2


def test_async_tasks_and_tasks_that_yield_run_in_processes() -> None:
    assert in_processes(lambda: bodies.add_async.submit(1, b=2).result()) == 3
    assert in_processes(lambda: bodies.count.submit(3).result()) == [0, 1, 2]


def test_a_future_is_an_argument_for_another_process() -> None:
    def body() -> int:
        first = bodies.add_async.submit(1, 2)
        return bodies.add_async.submit(first, 10).result()

    assert in_processes(body) == 13


def test_an_exception_travels_with_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError, match="by nothing") as caught:
        in_processes(lambda: bodies.fail.submit("by nothing").result())
    assert "raise ZeroDivisionError(text)" in str(caught.value.__cause__)


def test_an_exception_travels_without_its_constructor_being_called_again() -> None:
    with pytest.raises(bodies.PickyError) as caught:
        in_processes(lambda: bodies.fails_pickily.submit().result())
    assert str(caught.value) == "one two"
    assert caught.value.second == "two"
    assert "fails_pickily" in str(caught.value.__cause__)


def test_an_exception_leaves_behind_what_cannot_travel() -> None:
    with pytest.raises(bodies.LockedError) as caught:
        in_processes(lambda: bodies.fails_with_baggage.submit().result())
    error = caught.value
    assert (error.errno, error.filename, error.path) == (13, "a.csv", "a.csv")
    assert not hasattr(error, "lock")


def test_an_exception_that_cannot_be_imported_is_told_in_words() -> None:
    with pytest.raises(LeaseholdError, match=r"LocalError: one two.*top of a module") as told:
        in_processes(lambda: bodies.fails_locally.submit().result())
    assert str(told.value).startswith("fails_locally-")


def test_a_result_that_cannot_travel_is_named() -> None:
    with pytest.raises(UnpicklableError, match=r"result of unpicklable_result.*lock") as caught:
        in_processes(lambda: bodies.unpicklable_result.submit().result())
    assert caught.value.task == "unpicklable_result"


def test_an_argument_that_cannot_travel_is_refused_at_submit() -> None:
    def body() -> None:
        with pytest.raises(UnpicklableError, match="parameter 'text'") as caught:
            bodies.fail.submit(threading.Lock())
        assert (caught.value.task, caught.value.parameter) == ("fail", "text")

    in_processes(body)


def test_a_task_that_cannot_be_imported_is_refused_at_submit() -> None:
    @task
    def local() -> None:
        pass

    def body() -> None:
        with pytest.raises(UnpicklableError, match="top of the module"):
            local.submit()

    in_processes(body)


@pytest.mark.parametrize(
    ("how", "words"), [("kill", "was killed by SIGKILL"), ("exit", "ended with exit code 7")]
)
def test_a_worker_that_dies_fails_its_own_future_alone(how: str, words: str) -> None:
    def body() -> tuple[Any, list[int]]:
        others = bodies.pid_of_worker.map(range(4))
        victim = bodies.dies.submit(how)
        more = bodies.pid_of_worker.map(range(4))
        victim.wait()
        return victim.state, others.result() + more.result()

    state, pids = in_processes(body)
    assert state.is_crashed()
    error = state.outcome(raise_on_failure=False)
    assert isinstance(error, WorkerDiedError)
    assert words in str(error)
    assert "dies-" in str(error)
    assert len(pids) == 8


def test_a_run_whose_worker_died_is_retried(tmp_path: Path) -> None:
    retried = bodies.attempts.with_options(retries=1)
    assert in_processes(lambda: retried.submit(str(tmp_path)).result()) == 2


def test_a_body_knows_its_run_and_its_flow() -> None:
    name, flow_name, parameters = in_processes(lambda: bodies.names.submit().result())
    assert name.startswith("names-")
    assert flow_name.startswith("in-processes-")
    assert parameters == {}


def test_a_body_knows_the_name_of_its_flow_and_may_submit_to_further_processes() -> None:
    named, run_name = in_processes(lambda: bodies.names_of_flow.submit().result())
    assert named == "in-processes"
    assert run_name.startswith("in-processes-")
    *pids, parent = in_processes(lambda: bodies.submits.submit(3).result())
    assert parent not in pids
    assert os.getpid() not in {*pids, parent}


def test_a_body_ends_after_what_it_has_submitted(tmp_path: Path) -> None:
    in_processes(lambda: bodies.forgets.submit(str(tmp_path / "trace")).result())
    assert (tmp_path / "trace").exists()


def test_what_a_body_submits_takes_slots_in_its_own_right() -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 2)
    assert in_processes(lambda: bodies.submits_narrow.submit().result()) == "ran"
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 1)
    with pytest.raises(DeadlockError, match="submits_narrow-2"):
        in_processes(lambda: bodies.submits_narrow.submit().result())
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name("tag:narrow").active_slots == 0


def test_an_initializer_is_called_in_each_process_before_its_first_task() -> None:
    runner = ProcessPoolTaskRunner(1, initializer=bodies.set_up, initargs=["a", "b"])

    @flow(task_runner=runner)
    def twice() -> list[list[str]]:
        return [bodies.tells_setup.submit().result() for _ in range(2)]

    assert twice() == [["a", "b"]] * 2
    with pytest.raises(UnpicklableError, match="initializer"):
        ProcessPoolTaskRunner(1, initializer=lambda: None)


@pytest.mark.parametrize(
    "runner", ["ProcessPoolTaskRunner(max_workers=1)", "ProcessPoolTaskRunner"]
)
def test_a_script_that_calls_its_flow_at_the_top_is_told_what_to_do(
    tmp_path: Path, runner: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            from leasehold import flow, task
            from leasehold.task_runners import ProcessPoolTaskRunner

            @task
            def body(number):
                return number

            @flow(task_runner={runner})
            def pool():
                return body.map(range(2)).result()

            pool()
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "WorkerDiedError" in last
    assert 'if __name__ == "__main__":' in last
    assert done.stderr.count("Traceback") == 1  # workers print none


def test_a_process_of_somebody_else_that_imports_such_a_script_hears_it_itself(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import multiprocessing
            from leasehold import flow
            from leasehold.task_runners import ProcessPoolTaskRunner

            @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
            def pool():
                return None

            pool()
            if __name__ == "__main__":
                process = multiprocessing.get_context("spawn").Process(target=print)
                process.start()
                process.join()
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("leasehold.exceptions.LeaseholdError")
    assert last.endswith('if __name__ == "__main__":')


def test_log_lines_of_workers_appear_in_the_parent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        in_processes(lambda: bodies.logs.submit("hello").result())
    (line,) = [one for one in caplog.records if "said in a worker: hello" in one.getMessage()]
    assert line.name == "leasehold.task_runs"
    assert line.__dict__["task_run_name"].startswith("logs-")


def test_prints_of_workers_are_logged_when_the_flow_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @flow(log_prints=True, task_runner=ProcessPoolTaskRunner(1))
    def loud() -> None:
        bodies.prints.submit("printed in a worker").result()

    with caplog.at_level(logging.INFO):
        loud()
    assert "printed in a worker" in caplog.text


def test_a_time_limit_interrupts_a_body_that_sleeps() -> None:
    began = time.monotonic()
    with pytest.raises(RunTimeoutError, match=r"longer than its timeout of 0.5 s"):
        in_processes(lambda: bodies.sleeps.submit(30).result())
    assert time.monotonic() - began < 20


def test_a_limit_holds_and_the_body_knows_its_lease(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 1)

    def body() -> list[Any]:
        with tags("narrow"):
            return bodies.holds.map([str(log)] * 4, seconds=0.05).result()

    held = in_processes(body, workers=3)
    running = peak = 0
    for line in sorted(log.read_text().splitlines()):
        running += int(line.split()[1])
        peak = max(peak, running)
    assert peak == 1
    assert all(limits == ["tag:narrow"] for _, limits in held)


def test_waiting_tasks_hold_no_worker(tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 1)

    def body() -> int:
        with tags("narrow"):
            slow = bodies.holds.map([str(tmp_path / "log")] * 3, seconds=1.0)
        bodies.pid_of_worker.submit().result()
        ended = sum(future.done() for future in slow)
        slow.wait()
        return ended

    assert in_processes(body, workers=2) == 0


def test_a_killed_worker_gives_its_slot_back(tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 1)

    def body() -> float:
        with tags("narrow"):
            dying = bodies.dies.submit("kill")
            dying.wait()
            began = time.monotonic()
            bodies.pid_of_worker.submit().result()
        return time.monotonic() - began

    assert in_processes(body, workers=2) < 2 + 5  # a new process starts, too
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name("tag:narrow").active_slots == 0


def test_ctrl_c_interrupts_workers_and_lets_finally_run(tmp_path: Path) -> None:
    def body() -> None:
        bodies.waits_for_interruption.submit(str(tmp_path))
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_processes(body)
    assert time.monotonic() - began < 20
    assert (tmp_path / "finally").exists()


def test_an_interrupt_between_two_bodies_is_for_neither() -> None:
    def body() -> tuple[int, int]:
        first = bodies.pid_of_worker.submit().result()
        os.kill(first, signal.SIGINT)
        time.sleep(0.3)  # until it has surely arrived
        return first, bodies.pid_of_worker.submit().result()

    first, second = in_processes(body, workers=1)
    assert first == second


def test_workers_end_at_once_when_their_parent_is_killed(tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 1)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, pathlib, sys, time
            from leasehold import flow, task
            from leasehold.task_runners import ProcessPoolTaskRunner

            @task(tags=["narrow"])
            def body(path):
                pathlib.Path(path + ".tmp").write_text(str(os.getpid()))
                os.rename(path + ".tmp", path)
                time.sleep(120)

            @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
            def pool():
                body.submit(sys.argv[1]).wait()

            if __name__ == "__main__":
                pool()
        """)
    )
    pid_file = tmp_path / "pid"
    with subprocess.Popen([sys.executable, str(script), str(pid_file)]) as parent:
        while not pid_file.exists():
            time.sleep(0.05)
            assert parent.poll() is None
        worker = int(pid_file.read_text())
        parent.kill()
    gone_by = time.monotonic() + 2 + 1
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < gone_by
        time.sleep(0.05)
    with concurrency("tag:narrow", timeout_seconds=5):
        pass


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_a_pool_has_at_least_one_worker(workers: Any) -> None:
    with pytest.raises(ValueError, match="max_workers must be a whole number above 0"):
        ProcessPoolTaskRunner(workers)


def test_the_size_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_TASKS_RUNNER_PROCESS_POOL_MAX_WORKERS", "3")
    assert ProcessPoolTaskRunner()._max_workers == 3
    monkeypatch.setenv("PREFECT_TASKS_RUNNER_PROCESS_POOL_MAX_WORKERS", "many")
    with pytest.raises(SettingsError, match="'many'"):
        ProcessPoolTaskRunner()
