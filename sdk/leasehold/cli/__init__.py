"""The command `leasehold`: limits, and where they are kept.

Arguments and options are those of the `prefect` command of today, so that a script needs only its
first word changed. `main` is the entry; nothing imports this package.
"""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 1 refused, not found or not reachable, said in one line on stderr; 2 the
    command line itself is wrong; 130 stopped by Ctrl-C.
    """
    try:
        from leasehold.cli.app import app

        if isinstance(sys.stdout, io.TextIOWrapper):
            # A tag may have letters that this terminal cannot show: better odd than a traceback.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            app(prog_name="leasehold")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough (`leasehold limit ls | head`). Python would try
        # to flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
