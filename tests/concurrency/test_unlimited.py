"""What is known of limits that do not exist."""

from __future__ import annotations

from leasehold.concurrency.unlimited import Unlimited


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


def test_it_is_believed_for_a_while() -> None:
    clock = Clock()
    unlimited = Unlimited(clock)
    unlimited.note(("tag:a",), seconds=5)
    assert unlimited.knows(("tag:a",))
    assert not unlimited.knows(("tag:b",))
    clock.now = 5
    assert not unlimited.knows(("tag:a",))


def test_a_limit_that_is_made_here_ends_it_at_once() -> None:
    unlimited = Unlimited(Clock())
    unlimited.note(("tag:a", "tag:b"), seconds=5)
    unlimited.note(("tag:c",), seconds=5)
    unlimited.forget(["tag:b"])
    assert not unlimited.knows(("tag:a", "tag:b"))
    assert unlimited.knows(("tag:c",))


def test_where_each_run_has_a_tag_of_its_own_memory_does_not_grow() -> None:
    clock = Clock()
    unlimited = Unlimited(clock)
    for number in range(10_000):
        clock.now += 0.01
        unlimited.note((f"tag:{number}",), seconds=5)
    assert len(unlimited._until) <= 1024
    assert unlimited.knows(("tag:9999",))
