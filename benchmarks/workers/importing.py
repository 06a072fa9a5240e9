"""How long an import takes, in a process that has imported nothing yet."""

from __future__ import annotations

import time

from benchmarks.workers import talk


def main() -> None:
    """Import what a file of flows imports."""
    options = talk.parser()
    options.add_argument("--statement", required=True)
    chosen = options.parse_args()
    statement = compile(chosen.statement, "<statement>", "exec")
    talk.ready()
    began = time.perf_counter()
    exec(statement, {})
    talk.report(seconds=time.perf_counter() - began)


if __name__ == "__main__":
    main()
