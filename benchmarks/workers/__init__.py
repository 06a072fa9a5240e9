"""The programs that are measured. Each runs in a process of its own, started by the driver.

Rules:

1. A worker that compares takes the name of the SDK and is the same program for both: only the
   first word of its imports differs.
2. It says `ready` when all that is not measured is done, goes on when it is told to, and prints one
   line of figures at its end (`talk`).
3. It runs with Prefect's interpreter too: nothing but the standard library is imported at the top.
"""
