"""Mapping. Iterables, `unmapped`, failed inputs, lengths: tests/authoring/test_futures."""

from __future__ import annotations

from typing import Any

from leasehold import flow, task, unmapped
from leasehold.utilities.annotations import quote


@task
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task
def keys_of(key: str) -> str:
    return key


@task
def is_a_list(value: Any) -> bool:
    return isinstance(value, list)


def test_a_fan_out_is_gathered_by_one_task() -> None:
    @flow
    def fan() -> Any:
        return total.submit(add.map(range(5), 10)).result()

    assert fan() == sum(range(10, 15))


def test_maps_follow_upon_maps_without_waiting_between() -> None:
    @flow
    def chain() -> Any:
        first = add.map([1, 2, 3])
        second = add.map(first, first)
        return add.map(second, unmapped(100)).result()

    assert chain() == [102, 104, 106]


def test_a_collection_that_is_unmapped_is_the_same_for_every_call() -> None:
    @flow
    def same() -> Any:
        return add.map([[1], [2]], unmapped([9])).result()

    assert same() == [[1, 9], [2, 9]]


def test_a_dict_is_mapped_over_by_its_keys_and_a_string_not_at_all() -> None:
    @flow
    def over() -> Any:
        return keys_of.map({"x": 1, "y": 2}).result(), add.map(["a", "b"], "!").result()

    assert over() == (["x", "y"], ["a!", "b!"])


def test_elements_of_what_is_quoted_are_quoted() -> None:
    @flow
    def quoted() -> Any:
        future = add.submit(1)
        return is_a_list.map(quote([[future], [future]])).result()

    assert quoted() == [True, True]


def test_mapped_calls_by_name_wait_for_what_they_are_told_to_wait_for() -> None:
    order: list[str] = []

    @task
    def note(word: str) -> None:
        order.append(word)

    @flow
    def ordered() -> None:
        first = note.submit("first")
        note.map(word=["later"] * 3, wait_for=[first]).wait()

    ordered()
    assert order == ["first", *["later"] * 3]


def test_a_copy_with_options_is_mapped_under_its_own_name() -> None:
    @flow
    def named() -> Any:
        futures = add.with_options(task_run_name="add-{a}").map([1, 2])
        futures.wait()
        return [future.name for future in futures]

    assert named() == ["add-1", "add-2"]
