"""How many tasks whose tag has no limit run in some seconds; the driver counts the requests."""

from __future__ import annotations

import importlib
import time

from benchmarks.workers import talk


def main() -> None:
    """Call a tagged task for as long as told."""
    options = talk.parser()
    options.add_argument("--seconds", type=float, required=True)
    chosen = options.parse_args()
    sdk = importlib.import_module(chosen.sdk)

    nothing = sdk.task(lambda: None, name="nothing", tags=[chosen.limit])

    def measure() -> None:
        talk.ready()
        began, tasks = time.monotonic(), 0
        while time.monotonic() - began < chosen.seconds:
            nothing()
            tasks += 1
        talk.report(tasks=tasks)

    sdk.flow(measure)()


if __name__ == "__main__":
    main()
