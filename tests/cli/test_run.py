"""``leasehold run``: files whose imports still say prefect."""

from __future__ import annotations

import os
import pty
import signal
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
        [sys.executable, "-m", "leasehold", "run", *map(str, args)],
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
    assert "(got 'many')" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_parameter_is_text_where_the_flow_wants_text(write: Write) -> None:
    path = write("""
        from prefect import flow

        @flow
        def send(zip: str, either: int | str, maybe: str | None, tags: list[str], free=None):
            print(repr((zip, either, maybe, tags, free)))
    """)
    given = ["zip=12345", "either=7", "maybe=null", 'tags=["a"]', "free=1.5"]
    done = run(path, *(f"--param={one}" for one in given))
    assert done.stdout == "('12345', 7, None, ['a'], 1.5)\n", done.stderr
    given = ["zip=true", "either=x", "maybe=1", "tags=a"]
    done = run(path, *(f"--param={one}" for one in given))
    assert "send': tags: Input should be a valid list (got 'a')." in done.stderr


def test_an_annotation_that_is_there_for_type_checkers_alone_is_named(write: Write) -> None:
    path = write("""
        from __future__ import annotations
        from typing import TYPE_CHECKING
        from prefect import flow

        if TYPE_CHECKING:
            import pandas as pd

        @flow
        def etl(count: int, frame: pd.DataFrame | None = None):
            print(count)
    """)
    done = run(path, "--param", "count=1")
    assert done.returncode == 1
    assert "Flow 'etl': the annotation of frame, 'pd.DataFrame | None'," in done.stderr
    assert "validate_parameters=False" in done.stderr
    assert "Traceback" not in done.stderr


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


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_flow_that_yields_runs_to_its_end(write: Write, kind: str) -> None:
    done = run(
        write(f"""
            from prefect import flow

            @flow
            {kind} numbers():
                for number in range(2):
                    yield number
                    print("went on after", number)
        """)
    )
    assert (done.returncode, done.stdout) == (0, "went on after 0\nwent on after 1\n")


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


def test_a_one_off_limit_is_gone_when_the_run_was_told_to_end(write: Write) -> None:
    path = write("""
        import time
        from prefect import flow, task

        @task(tags=["database"])
        def body():
            try:
                print("began", flush=True)
                time.sleep(60)
            finally:
                print("finally", flush=True)

        @flow
        def one():
            body()
    """)
    with subprocess.Popen(
        [sys.executable, "-m", "leasehold", "run", str(path), "--limit", "database=2"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "finally\n"
    assert process.returncode == 128 + signal.SIGTERM
    with get_client(sync_client=True) as client:
        assert client.read_concurrency_limits(200, 0) == []


def test_what_we_lack_is_named_with_its_line(write: Write) -> None:
    done = run(write("from prefect import flow\nfrom prefect.blocks.system import Secret\n"))
    assert done.returncode == 1
    assert "etl.py, line 2: prefect.blocks is Prefect's" in done.stderr
    done = run(write("import prefect\nfrom prefect import flow, serve\n"))
    assert "etl.py, line 2: prefect.serve is Prefect's" in done.stderr
    assert "Traceback" not in done.stderr


def test_packages_around_prefect_are_named(write: Write) -> None:
    done = run(write("from prefect import flow\nfrom prefect_dask import DaskTaskRunner\n"))
    assert done.returncode == 1
    assert "etl.py, line 2: prefect_dask is not installed" in done.stderr
    assert "ProcessPoolTaskRunner" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_may_do_without_what_is_not_there(write: Write) -> None:
    done = run(
        write("""
            from prefect import flow

            missing = []
            try:
                import prefect_dask
            except ModuleNotFoundError as error:
                missing.append(error.feature)
            try:
                from prefect.blocks.system import Secret
            except ImportError as error:
                missing.append(error.feature)

            @flow
            def etl():
                print(*missing)
        """)
    )
    assert done.stdout == "prefect_dask prefect.blocks\n", done.stderr


def test_a_module_of_ones_own_may_be_called_like_them(write: Write) -> None:
    write("greeting = 'hello'\n", name="prefect_helpers.py")
    done = run(
        write("""
            from prefect import flow
            from prefect_helpers import greeting

            @flow
            def etl():
                print(greeting)
        """)
    )
    assert done.stdout == "hello\n", done.stderr


@pytest.mark.parametrize("wrong", ["etl.py", "other.py"])
def test_a_syntax_error_shows_the_line_of_the_file_alone(write: Write, wrong: str) -> None:
    path = write("import other\n")
    write("x = 1\ndef broken(:\n", name=wrong)
    done = run(path)
    assert done.returncode == 1
    assert f'{wrong}", line 2\n    def broken(:\n' in done.stderr
    assert "SyntaxError" in done.stderr
    assert "importlib" not in done.stderr
    assert "cli/run.py" not in done.stderr


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
        [sys.executable, "-m", "leasehold", "run", str(path), "--limit", "database=2"],
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
