"""What tasks cost that wait for a slot which somebody else has."""

from __future__ import annotations

import importlib
import os
import time

from benchmarks.workers import talk


def main() -> None:
    """Submit tasks that have to wait, watch the process wait, and let them run."""
    options = talk.parser()
    options.add_argument("--tasks", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True, help="how long to watch")
    chosen = options.parse_args()
    import httpx

    server = httpx.Client(base_url=os.environ["PREFECT_API_URL"], timeout=30)
    slot = {"names": [f"tag:{chosen.limit}"], "slots": 1, "mode": "concurrency"}
    server.post("/v2/concurrency_limits/increment", json=slot).raise_for_status()
    sdk = importlib.import_module(chosen.sdk)

    nothing = sdk.task(lambda: None, name="nothing", tags=[chosen.limit])

    def many() -> None:
        talk.ready()
        memory = talk.resident_bytes()
        waiting = [nothing.submit() for _ in range(chosen.tasks)]
        time.sleep(2)  # all of them have come to wait
        memory = talk.resident_bytes() - memory
        cpu = time.process_time()
        time.sleep(chosen.seconds)
        cpu = time.process_time() - cpu
        assert not any(future.state.is_completed() for future in waiting)
        server.post("/v2/concurrency_limits/decrement", json=slot).raise_for_status()
        for future in waiting:
            future.wait()
        talk.report(cpu_share=cpu / chosen.seconds, memory_bytes=memory)

    sdk.flow(many)()


if __name__ == "__main__":
    main()
