"""Tags. That limits hold for calls, submit, map and several tags at once: tests/scenarios."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from leasehold import current_lease, flow, get_client, tags, task
from leasehold.exceptions import ZeroLimitError
from leasehold.runtime import task_run


@task(tags=["database"])
def query() -> Any:
    lease = current_lease()
    return task_run.tags, [] if lease is None else sorted(lease.limits)


@flow
def pipeline() -> Any:
    return query()


def make_limits(**sizes: int) -> None:
    with get_client(sync_client=True) as client:
        for tag, size in sizes.items():
            client.create_concurrency_limit(tag, size)


def test_a_tag_without_a_limit_is_a_label() -> None:
    assert pipeline() == (["database"], [])


def test_a_tag_with_a_limit_is_held_while_the_task_runs() -> None:
    make_limits(database=1)
    assert pipeline() == (["database"], ["tag:database"])


def test_tags_around_a_flow_count_for_its_tasks() -> None:
    make_limits(nightly=1, database=2)
    with tags("nightly", "label") as now:
        told = pipeline()
    assert now == {"nightly", "label"}
    assert told == (["database", "label", "nightly"], ["tag:database", "tag:nightly"])
    assert pipeline() == (["database"], ["tag:database"])


def test_a_limit_of_0_is_told_of_with_a_command_that_can_be_copied() -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("big tables", 0)
    with tags("big tables"), pytest.raises(ZeroLimitError) as caught:
        query()
    assert str(caught.value).endswith(": leasehold limit create 'big tables' N")


def test_limits_are_administered_as_with_prefect() -> None:
    async def administer() -> Any:
        async with get_client() as client:
            await client.create_concurrency_limit(tag="database", concurrency_limit=10)
            limit = await client.read_concurrency_limit_by_tag(tag="database")
            every = await client.read_concurrency_limits(limit=10, offset=0)
            await client.delete_concurrency_limit_by_tag(tag="database")
            left = await client.read_concurrency_limits(limit=10, offset=0)
        return limit.concurrency_limit, [one.tag for one in every], left

    assert asyncio.run(administer()) == (10, ["database"], [])
