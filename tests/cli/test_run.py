"""``leasehold run``: files whose imports still say prefect."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from leasehold.cli.progress import Progress
from leasehold.client import get_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]


FLOWS = """
    from prefect import flow, get_run_logger, tags, task, unmapped
    from prefect.concurrency.sync import concurrency
    from prefect.context import get_run_context
    from prefect.futures import as_completed, wait
    from prefect.runtime import flow_run
    from prefect.states import Completed, Failed
    from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
    from prefect.tasks import exponential_backoff
    from prefect.utilities.annotations import quote
    import prefect, prefect.runtime

    @task(tags=["database"], retries=1, retry_delay_seconds=exponential_backoff(1))
    def load(number: int) -> int:
        return 2 * number

    @flow
    def etl(count: int = 3, title: str = "total"):
        total = sum(load.map(range(count)).result())
        print(title, total, prefect.runtime.flow_run.flow_name)
        return total
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of flows."""

    def to_file(text: str, name: str = "etl.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return to_file


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leasehold.cli", "run", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def test_prefect_is_not_installed_here() -> None:
    code = "import importlib.util as u; raise SystemExit(u.find_spec('prefect') is not None)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 0


def test_a_file_that_imports_prefect_runs(write: Write) -> None:
    done = run(write(FLOWS))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "total 6 etl\n"
    assert "Completed" in done.stderr


def test_parameters_are_json_or_strings_and_are_converted(write: Write) -> None:
    done = run(f"{write(FLOWS)}:etl", "--param", "count=4", "--param", "title=sum of all")
    assert done.stdout == "sum of all 12 etl\n"
    bad = run(write(FLOWS), "--param", "count=many")
    assert bad.returncode == 1
    assert "count: Input should be a valid integer" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_an_async_flow_runs(write: Write) -> None:
    done = run(
        write("""
            import asyncio
            from prefect import flow

            @flow
            async def later():
                await asyncio.sleep(0)
                print("ran")
        """)
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_a_one_off_limit_holds_and_is_gone_afterwards(write: Write) -> None:
    path = write("""
        import threading, time
        from prefect import flow, task

        running = threading.Semaphore(2)

        @task(tags=["database"])
        def body(_):
            assert running.acquire(blocking=False), "more than two at once"
            time.sleep(0.02)
            running.release()

        @flow
        def many():
            body.map(range(10)).result()
            print("fine")
    """)
    assert run(path, "--limit", "database=2").stdout == "fine\n"
    with get_client(sync_client=True) as client:
        assert client.read_concurrency_limits(200, 0) == []
        client.create_concurrency_limit("database", 5)
    taken = run(path, "--limit", "database=2")
    assert taken.returncode == 1
    assert "'database' has a limit already" in taken.stderr


def test_what_we_lack_is_named_with_its_line(write: Write) -> None:
    done = run(write("from prefect import flow\nfrom prefect.blocks.system import Secret\n"))
    assert done.returncode == 1
    assert "etl.py, line 2: prefect.blocks is Prefect's" in done.stderr
    done = run(write("import prefect\nfrom prefect import flow, serve\n"))
    assert "etl.py, line 2: prefect.serve is Prefect's" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unsupported_option_is_named(write: Write) -> None:
    done = run(write("from prefect import task\n@task(persist_result=True)\ndef f(): pass\n"))
    assert done.returncode == 1
    assert "etl.py, line 2: @task has no option 'persist_result'" in done.stderr


def test_a_flow_that_fails_shows_the_traceback_of_the_file_alone(write: Write) -> None:
    path = write("""
        from prefect import flow, task

        @task
        def bad():
            raise ZeroDivisionError("in the task")

        @flow
        def etl():
            bad()
    """)
    done = run(path)
    assert done.returncode == 1
    assert "ZeroDivisionError: in the task" in done.stderr
    assert "cli/run.py" not in done.stderr


def test_which_flow_must_be_clear(write: Write) -> None:
    path = write(
        f"{FLOWS}\n    @flow(name='other-flow')\n    def other():\n        print('other')\n"
    )
    several = run(path)
    assert several.returncode == 1
    assert "several flows: etl, other" in several.stderr
    assert run(f"{path}:other-flow").stdout == "other\n"
    unknown = run(f"{path}:nope")
    assert "no flow 'nope'. It has: etl, other" in unknown.stderr
    none = run(write("x = 1\n"))
    assert "no function decorated with @flow" in none.stderr


def test_of_several_flows_the_one_that_the_script_starts_is_run(write: Write) -> None:
    path = write("""
        from prefect import flow

        @flow
        def inner():
            print("inner")

        @flow
        def outer():
            inner()
            print("outer")

        if __name__ == "__main__":
            outer()
    """)
    assert run(path).stdout == "inner\nouter\n"


@pytest.mark.parametrize(
    "arguments", [["missing.py"], ["--param", "x"], ["--limit", "database=many"]]
)
def test_a_wrong_command_line_is_exit_code_two(write: Write, arguments: list[str]) -> None:
    path = [] if arguments[0] == "missing.py" else [write(FLOWS)]
    done = run(*path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_processes_know_prefect_too(write: Write) -> None:
    done = run(
        write("""
            from prefect import flow, task
            from prefect.task_runners import ProcessPoolTaskRunner
            import os

            @task
            def where():
                return os.getpid()

            @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
            def pool():
                print(where.submit().result() != os.getpid())
        """)
    )
    assert done.stdout == "True\n", done.stderr


def test_a_file_may_be_named_like_a_module_of_pythons(write: Write) -> None:
    assert run(write(FLOWS, name="json.py")).stdout == "total 6 etl\n"


def test_progress_is_shown_on_a_terminal(write: Write) -> None:
    path = write("""
        import time
        from prefect import flow, task

        @task(tags=["database"])
        def body(_):
            time.sleep(0.3)

        @flow
        def many():
            body.map(range(6)).result()
    """)
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "leasehold.cli", "run", str(path), "--limit", "database=2"],
        stderr=child,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                read = os.read(parent, 4096)
            except OSError:
                break
            if not read:
                break
            shown += read
    os.close(parent)
    assert process.returncode == 0
    assert b"database: 2 of 2 slots, 2 running" in shown
    assert b"6 done" in shown


def test_progress_counts_by_tag() -> None:
    assert Progress().lines() == []
