"""Ctrl-C ends a program in seconds, whatever its tasks are doing."""

from __future__ import annotations

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
