"""Limits of their own for tests that were written for Prefect."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def prefect_test_harness(server_startup_timeout: float | None = None) -> Iterator[None]:
    """Keep limits in a temporary folder for the time of the block; there are none at first.

    Example:
        >>> with prefect_test_harness():
        ...     etl()                                   # doctest: +SKIP

    Args:
        server_startup_timeout: no server is started here, so nothing waits for one.
    """
    del server_startup_timeout
    give_back()  # what is held is held elsewhere
    with tempfile.TemporaryDirectory(prefix="leasehold-test-") as folder:
        settings = {"PREFECT_API_URL": "", "LEASEHOLD_HOME": folder}
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield
        finally:
            give_back()
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def give_back() -> None:
    """End what holds slots in this process; the next task starts anew."""
    from leasehold.concurrency import process

    process.shut_down()
