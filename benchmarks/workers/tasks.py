"""Many equal tasks under one tag's limit: when is the last one done?"""

from __future__ import annotations

import importlib
import threading
import time

from benchmarks.workers import talk

THREADS = 32


class Gauge:
    """Counts how many bodies run at once; the limit is checked, not believed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def main() -> None:
    """Submit the tasks, and wait for them."""
    options = talk.parser()
    options.add_argument("--tasks", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True, help="what one task takes")
    options.add_argument("--warm", action="store_true", help="after a first task")
    chosen = options.parse_args()
    sdk = importlib.import_module(chosen.sdk)
    runners = importlib.import_module(f"{chosen.sdk}.task_runners")
    gauge = Gauge()

    def body() -> None:
        with gauge:
            time.sleep(chosen.seconds)

    nap = sdk.task(body, tags=[chosen.limit])

    def many() -> None:
        if chosen.warm:
            nap.submit().wait()
        talk.ready()
        memory, cpu, began = talk.resident_bytes(), time.process_time(), time.time()
        for future in [nap.submit() for _ in range(chosen.tasks)]:
            future.wait()
        ended = time.time()
        talk.report(
            began=began,
            ended=ended,
            seconds=ended - began,
            cpu_seconds=time.process_time() - cpu,
            most_at_once=gauge.most,
            memory_bytes=max(talk.peak_bytes() - memory, 0),
        )

    sdk.flow(many, task_runner=runners.ThreadPoolTaskRunner(max_workers=THREADS))()


if __name__ == "__main__":
    main()
