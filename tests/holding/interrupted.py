"""Takes a slot again and again, and survives Ctrl-C; ends when its input does."""

from __future__ import annotations

import sys
import time

from leasehold import concurrency

tag = sys.argv[1]
with concurrency(f"tag:{tag}"):
    pass
while True:
    try:
        sys.stdout.write("start\n")
        sys.stdout.flush()
        while True:
            with concurrency(f"tag:{tag}"):
                time.sleep(0.005)
            time.sleep(0.002)
    except KeyboardInterrupt:
        sys.stdout.write("interrupted\n")
        sys.stdout.flush()
    if not sys.stdin.readline():
        break
