"""A small ETL flow: files of orders go into one SQLite database, a few at a time.

The database stands for one that is shared and gets slow when everybody writes to it at once. So
the task that writes has the tag `database`, and the tag has a limit. The other tasks have none and
run as they come. Nothing else in the flow knows about the limit.

    python examples/etl_database.py --files 36 --seconds 1 --limit 3
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from _scaffold import Meter, run, slots_in_use, summarize, tag_limit
from _view import watch
from leasehold import flow, task, unmapped
from leasehold.client import get_client

Order = tuple[str, str, int]

meter = Meter()


@task
def extract(path: Path) -> list[dict[str, str]]:
    """Read one shop's file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@task
def transform(rows: list[dict[str, str]]) -> list[Order]:
    """Compute what each order is worth, in cents."""
    return [
        (row["order"], row["product"], int(row["quantity"]) * int(row["cents_each"]))
        for row in rows
    ]


@task(tags=["database"])
def load(orders: list[Order], database: Path, seconds: float) -> int:
    """Write one file's orders, in ten steps that take `seconds` together."""
    began = time.monotonic()
    step = math.ceil(len(orders) / 10)
    # The meter only bears witness: it counts how many of these bodies run at once.
    with meter, closing(sqlite3.connect(database, timeout=60)) as connection:
        for first in range(0, len(orders), step):
            with connection:
                connection.executemany(
                    "INSERT INTO orders VALUES (?, ?, ?)", orders[first : first + step]
                )
            due = began + seconds * min(first + step, len(orders)) / len(orders)
            time.sleep(max(due - time.monotonic(), 0.0))
    return len(orders)


@flow
def etl(files: list[Path], database: Path, seconds: float, limit: int) -> int:
    """Bring all files into the database; gives the number of orders."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute('CREATE TABLE orders ("order" TEXT, product TEXT, cents INTEGER)')
    orders = transform.map(extract.map(files))
    loads = load.map(orders, unmapped(database), unmapped(seconds))
    watch(loads, tag="database", size=limit)  # instead of loads.wait(), which shows nothing
    return sum(loads.result())


def write_files(folder: Path, count: int) -> tuple[list[Path], int]:
    """Write `count` files of orders; gives them, and what all orders are worth in cents."""
    chance = random.Random(7)
    worth = 0
    files = [folder / f"shop-{number:03}.csv" for number in range(1, count + 1)]
    for path in files:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["order", "product", "quantity", "cents_each"])
            for number in range(50):
                quantity, cents = chance.randint(1, 5), chance.randint(100, 9999)
                product = chance.choice(["lamp", "chair", "table"])
                writer.writerow([f"{path.stem}-{number}", product, quantity, cents])
                worth += quantity * cents
    return files, worth


def main() -> int:
    """Run the flow, and say whether the limit held and every order arrived."""
    parser = argparse.ArgumentParser(description="Load files into SQLite under a tag's limit.")
    parser.add_argument("--files", type=int, default=36, help="how many (default: 36)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one load (default: 1)")
    parser.add_argument("--limit", type=int, default=3, help="of tag database (default: 3)")
    options = parser.parse_args()

    with (
        tempfile.TemporaryDirectory(prefix="leasehold-etl-") as folder,
        tag_limit("database", options.limit) as limit,
    ):
        files, worth = write_files(Path(folder), options.files)
        database = Path(folder) / "orders.db"
        print(f"{len(files)} files are to be loaded, at most {limit} at once.")
        began = time.monotonic()
        try:
            count = etl(files, database, options.seconds, limit)
        finally:
            took = time.monotonic() - began
            meter.wait_until_idle()
        with closing(sqlite3.connect(database)) as connection:
            found = connection.execute("SELECT COUNT(*), SUM(cents) FROM orders").fetchone()
        with get_client(sync_client=True) as client:
            left, address = slots_in_use(client, "tag:database"), client.address

    rounds = math.ceil(len(files) / limit)
    complete = found == (count, worth)
    summarize(
        limit=f"{limit} for tag 'database'",
        peak_in_use=f"{meter.peak}, counted inside the loads",
        time=f"{took:.1f} s",
        ideal_time=f"{rounds * options.seconds:.1f} s: {len(files)} loads of "
        f"{options.seconds:g} s, {limit} at once",
        slots_in_use_at_the_end=left,
        orders_loaded=f"{count:,}, {'all of them' if complete else 'NOT what the files say'}",
        limits_are_kept_at=address,
    )
    return 0 if meter.peak <= limit and complete else 1


if __name__ == "__main__":
    run(main)
