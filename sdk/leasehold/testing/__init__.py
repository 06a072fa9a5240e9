"""For tests of your own flows: a server in memory, a clock that you move, and pytest fixtures.

The fixtures come with the package; pytest finds them by itself::

    def test_three_loads_at_a_time(leasehold_server):
        leasehold_server.limit("database", 3)
        etl()
        assert leasehold_server.used("database") == 0

- ``leasehold_server``: a `FakeServer`; flows talk to it instead of a real one, without a network.
- ``manual_clock``: that server's time, which stands still until you move it.
- ``leasehold_router``: a respx router whose routes that server answers, for those who mock HTTP;
  it comes with ``pip install "leasehold[testing]"``.

How a task takes the loss of its slot, too, is seen at once: ``leasehold_server.expire()``.

Tests that were written for Prefect have `prefect_test_harness` here, too: a temporary ledger.

The fake answers from the embedded ledger, and passes the tests that real servers pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leasehold.testing.clock import ManualClock as ManualClock
    from leasehold.testing.server import FakeServer as FakeServer
    from leasehold.testing.server import RecordedRequest as RecordedRequest
    from leasehold.testing.utilities import prefect_test_harness as prefect_test_harness

_EXPORTS = {
    "FakeServer": "server",
    "ManualClock": "clock",
    "RecordedRequest": "server",
    "prefect_test_harness": "utilities",
}

__all__ = ["FakeServer", "ManualClock", "RecordedRequest", "prefect_test_harness"]


def __getattr__(name: str) -> Any:
    # The plugin in this package loads with every run of pytest, needed or not.
    from importlib import import_module

    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
