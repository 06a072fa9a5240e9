"""Ctrl-C ends a program in seconds, whatever its tasks are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("body", ["time.sleep(0.05)", "time.sleep(60)"])
def test_a_program_ends_after_ctrl_c_although_a_call_blocks(tmp_path: Path, body: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import time
            from leasehold import flow, get_client, task

            with get_client(sync_client=True) as client:
                client.create_concurrency_limit("narrow", 1)

            @task(tags=["narrow"])
            def body(_):
                print("began", flush=True)
                for _ in range(1000):
                    {body}

            @flow
            def many():
                try:
                    body.map(range(50)).wait()
                finally:
                    print("finally", flush=True)

            many()
        """)
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "began\n"
        began = time.monotonic()
        program.send_signal(signal.SIGINT)
        assert program.stdout.read() == "finally\n"
        program.wait(30)
    assert time.monotonic() - began < 5 + 1
    assert program.returncode == -signal.SIGINT


_POOL = """
import sys, time
from leasehold import flow, task
from leasehold.task_runners import ProcessPoolTaskRunner

def say(word):
    print(word, flush=True)

if __name__ == "__mp_main__" and "slow start" in sys.argv:
    say("starting")
    time.sleep(1)

@task
{kind} body():
    try:
        say("began")
        {sleep}(60)
    finally:
        {sleep}(0.7)
        say("cleaned up")

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def pool():
    body.submit().wait()

if __name__ == "__main__":
    pool()
"""


def ctrl_c_in_a_terminal(script: Path, first_line: str, *args: str) -> tuple[str, str]:
    """Interrupt a program and all its processes, as terminals do; give what it prints then."""
    with subprocess.Popen(
        [sys.executable, str(script), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == first_line + "\n"
        began = time.monotonic()
        os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=30)
    assert time.monotonic() - began < 5 + 1
    assert program.returncode == -signal.SIGINT
    return out, err


@pytest.mark.parametrize(
    ("kind", "sleep"), [("def", "time.sleep"), ("async def", "await asyncio.sleep")]
)
def test_ctrl_c_in_a_terminal_does_not_cut_off_what_workers_clean_up(
    tmp_path: Path, kind: str, sleep: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import asyncio" + _POOL.format(kind=kind, sleep=sleep))
    assert ctrl_c_in_a_terminal(script, "began")[0] == "cleaned up\n"


def test_ctrl_c_while_a_worker_starts_ends_it_without_a_word_and_without_its_body(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(_POOL.format(kind="def", sleep="time.sleep"))
    out, err = ctrl_c_in_a_terminal(script, "starting", "slow start")
    assert out == ""
    assert err.count("Traceback") == 1  # the program's own
    assert err.endswith("KeyboardInterrupt\n")
