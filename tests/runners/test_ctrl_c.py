"""Ctrl-C ends a program in seconds, whatever its tasks are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
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
    assert interrupted(script) == "finally\n"


def interrupted(script: Path) -> str:
    """Interrupt a program once a body of it has begun; give what it prints then."""
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
    ) as program:
        stop = threading.Timer(30, program.kill)
        stop.start()
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "began\n"
            began = time.monotonic()
            program.send_signal(signal.SIGINT)
            printed = program.stdout.read()
            program.wait(30)
        finally:
            stop.cancel()
            program.kill()
    assert program.returncode == -signal.SIGINT
    assert time.monotonic() - began < 5 + 1
    return printed


@pytest.mark.parametrize(
    "wait",
    [
        "body.submit().result()",
        "body.submit().result(timeout=60)",
        "list(as_completed([body.submit()]))",
        "body.submit()",
        "body.submit(); wait_for_it(); raise ValueError",
        "body.submit(); wait_for_it()\n    with concurrency('tag:narrow'): pass",
    ],
)
def test_ctrl_c_is_not_missed_where_it_does_not_wake_the_main_thread(
    tmp_path: Path, wait: str
) -> None:
    """So it is, too, for a signal that comes in the moment before the main thread waits."""
    script = tmp_path / "script.py"
    script.write_text(_SENT_ASIDE.format(wait=wait))
    program = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False
    )
    assert program.returncode == -signal.SIGINT
    told, ended = map(float, program.stdout.split())
    assert ended - told < 1 + 5 + 1


_SENT_ASIDE = """
import atexit, signal, threading, time
from leasehold import concurrency, flow, get_client, task
from leasehold.futures import as_completed

with get_client(sync_client=True) as client:
    client.create_concurrency_limit("narrow", 1)
begun = threading.Event()
atexit.register(lambda: print(time.monotonic()))

def wait_for_it():
    begun.wait(20)

@task(tags=["narrow"])
def body():
    begun.set()
    time.sleep(0.5)
    print(time.monotonic(), flush=True)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    for _ in range(1200):
        time.sleep(0.05)

@flow
def waiting():
    {wait}

waiting()
"""


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
