"""A task that waits says so: for what, how much of it is used, and who holds it."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from leasehold import flow, task

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_the_first_wait_is_told_once_within_a_second(
    limit: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    tag, go = limit(1), threading.Event()

    @task(tags=[tag], task_run_name="holder-{number}")
    def body(number: int) -> None:
        go.wait(20)

    def told() -> list[logging.LogRecord]:
        return [
            one for one in caplog.records if "wait" in one.getMessage() and tag in one.getMessage()
        ]

    @flow
    def crowded() -> float:
        body.map(range(4))
        began = time.time()
        while not told() and time.time() - began < 15:
            time.sleep(0.02)
        go.set()
        return began

    with caplog.at_level(logging.INFO, logger="leasehold"):
        began = crowded()
    (line,) = told()
    assert line.levelno == logging.INFO
    assert line.created - began < 1 + 1
    assert "1/1 in use" in line.getMessage()
    assert "held by holder-0" in line.getMessage()


def test_the_line_counts_all_who_wait_however_many(
    limit: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    tag, go = limit(1), threading.Event()

    @task(tags=[tag])
    def body(_: int) -> None:
        go.wait(20)

    @flow
    def crowded() -> None:
        body.map(range(400))
        while "tasks wait" not in caplog.text:
            time.sleep(0.02)
        go.set()

    with caplog.at_level(logging.INFO, logger="leasehold"):
        crowded()
    assert f"399 tasks wait for tag {tag!r}" in caplog.text
