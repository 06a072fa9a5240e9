"""What the `prefect` command accepts and typer does not, rewritten. Pure.

Rules:

- ``--profile NAME`` and ``--prompt``/``--no-prompt`` may stand anywhere: they are moved to the
  front, where the program's own options are;
- an argument may be given as an option of the same name: ``create --tag database 3``.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAGS = {"--prompt", "--no-prompt"}


def session_first(args: Sequence[str]) -> list[str]:
    """Move the options that are meant for the whole program to the front.

    Example:
        >>> session_first(["limit", "delete", "database", "--no-prompt"])
        ['--no-prompt', 'limit', 'delete', 'database']
    """
    session, rest = [], []
    words = iter(args)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _FLAGS or word.startswith("--profile="):
            session.append(word)
        elif word == "--profile":
            session += [word, *islice(words, 1)]
        else:
            rest.append(word)
    return session + rest


def arguments_in_place(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Put arguments that were given as options where arguments are expected.

    Args:
        args: what follows the command.
        names: of the command's arguments, in order, and as they are written: ``concurrency-limit``.

    Example:
        >>> arguments_in_place(["--size", "3", "database"], ["tag", "size"])
        ['database', '3']
    """
    flags = [f"--{name}" for name in names]
    given: dict[str, str] = {}
    rest = []
    words = iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif flag in flags and equals:
            given[flag] = value
        elif flag in flags:
            given.update((flag, value) for value in islice(words, 1))
        else:
            rest.append(word)
    # No command has more than two arguments, so "before" and "after" the others is all there is.
    first = [given[flag] for flag in flags[:1] if flag in given]
    return first + rest + [given[flag] for flag in flags[1:] if flag in given]
