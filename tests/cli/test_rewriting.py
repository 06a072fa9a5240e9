from __future__ import annotations

import pytest

from leasehold.cli.rewriting import arguments_in_place, session_first


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["limit", "ls"], ["limit", "ls"]),
        (["limit", "delete", "x", "--no-prompt"], ["--no-prompt", "limit", "delete", "x"]),
        (["limit", "ls", "--profile", "a"], ["--profile", "a", "limit", "ls"]),
        (["limit", "ls", "--profile=a"], ["--profile=a", "limit", "ls"]),
        (["limit", "ls", "--profile"], ["--profile", "limit", "ls"]),
        (["limit", "delete", "--", "--prompt"], ["limit", "delete", "--", "--prompt"]),
    ],
)
def test_session_options_may_stand_anywhere(given: list[str], expected: list[str]) -> None:
    assert session_first(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "3"], ["a", "3"]),
        (["--tag", "a", "--size", "3"], ["a", "3"]),
        (["--size", "3", "--tag", "a"], ["a", "3"]),
        (["--size=3", "a"], ["a", "3"]),
        (["3", "--tag=a"], ["a", "3"]),
        (["--json", "a", "3"], ["--json", "a", "3"]),
        (["--tag"], []),
        (["--", "--tag", "3"], ["--", "--tag", "3"]),
    ],
)
def test_arguments_may_be_given_as_options(given: list[str], expected: list[str]) -> None:
    assert arguments_in_place(given, ["tag", "size"]) == expected
