"""Tasks. Options, names of runs, methods: tests/authoring/test_task_options, test_functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from leasehold import flow, task
from leasehold.cache_policies import NO_CACHE
from leasehold.exceptions import UnsupportedFeatureError, UnsupportedOptionError
from leasehold.utilities.annotations import opaque, quote


@dataclass
class Invoice:
    """Computes one of its fields, unless it is given."""

    net: float
    gross: Any = None
    made: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.made.append(1)
        if self.gross is None:
            self.gross = 2 * self.net


@task
def give(value: Any) -> Any:
    return value


def in_a_flow(body: Any) -> Any:
    results: list[Any] = []
    flow(name="documented")(lambda: results.append(body()))()
    return results[0]


def test_a_future_in_a_dataclass_is_replaced_and_the_dataclass_made_anew() -> None:
    def body() -> Any:
        invoice = Invoice(10.0, gross=give.submit(12.0))
        return give(invoice), invoice

    given, original = in_a_flow(body)
    assert given.gross == 12.0
    assert given is not original


def test_what_is_quoted_reaches_the_task_as_it_is() -> None:
    invoice = Invoice(10.0)
    invoice.gross = 11.0
    given = in_a_flow(lambda: give(quote(invoice)))
    assert given is invoice
    assert (given.gross, given.made) == (11.0, [1])
    assert quote([1]).unquote() == [1]


def test_what_is_opaque_is_waited_for_and_not_searched() -> None:
    def body() -> Any:
        future = give.submit(Invoice(1.0))
        inner = give.submit("inner")
        return (
            give.submit(opaque(future)).result(),
            future.result(),
            give.submit(opaque([inner])).result(),
            inner,
        )

    given, original, as_it_is, inner = in_a_flow(body)
    assert given is original
    assert as_it_is == [inner]


def test_a_task_that_asks_for_no_cache_gets_what_happens_anyway() -> None:
    calls: list[int] = []
    with_policy: Any = task

    def count() -> int:
        calls.append(1)
        return len(calls)

    counting = with_policy(cache_policy=NO_CACHE)(count)
    assert (counting(), counting()) == (1, 2)
    with pytest.raises(UnsupportedOptionError, match="cache_policy"):
        with_policy(cache_policy="INPUTS")


def test_a_copy_with_other_options_is_a_task_of_its_own() -> None:
    renamed = give.with_options(name="hand over", task_run_name="hand over {value}")
    assert (renamed.name, give.name) == ("hand over", "give")
    assert in_a_flow(lambda: renamed.submit(3).name) in {"hand over 3", "hand over-1"}


def test_background_tasks_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedFeatureError, match="deferred=True"):
        give.map([1, 2], deferred=True)
    with pytest.raises(UnsupportedFeatureError, match=r"Task 'give' has no \.delay\(\) here"):
        give.delay  # noqa: B018 - looking is what fails
