"""The kill matrix, as a table at the end of the run.

The times travel as properties of reports, because tests may run in processes of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

TIME_UNTIL_FREE: Final = "time until free"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the kill matrix: seconds from the process's death until its slot is free."""
    times = {
        tuple(cell): seconds
        for report in terminalreporter.getreports("passed")
        for name, value in getattr(report, "user_properties", ())
        if name == TIME_UNTIL_FREE
        for *cell, seconds in [value]
    }
    if not times:
        return
    terminalreporter.section("seconds from death until the slot is free")
    kinds = list(dict.fromkeys(kind for _, _, kind in times))
    places = sorted({place for place, _, _ in times})
    terminalreporter.write_line(f"{'':24}{'':10}" + "".join(f"{kind:>19}" for kind in kinds))
    for death in dict.fromkeys(death for _, death, _ in times):
        for place in places:
            row = [times.get((place, death, kind)) for kind in kinds]
            if any(one is not None for one in row):
                cells = "".join(f"{'' if one is None else f'{one:.2f}':>19}" for one in row)
                terminalreporter.write_line(f"{death:24}{place:10}{cells}")
