"""What the commands share: the session, the options, the command class, and questions."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from leasehold.cli.rewriting import arguments_in_place

if TYPE_CHECKING:
    from leasehold.client.clients import SyncClient
    from leasehold.settings import Settings


class Command(TyperCommand):
    """A command whose arguments may be given as options, too: see `rewriting`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words that follow the command."""
        arguments = [one for one in self.params if one.param_type_name == "argument"]
        names = [(one.name or "").replace("_", "-") for one in arguments]
        return super().parse_args(ctx, arguments_in_place(args, names))


def _json_only(output: str | None) -> str | None:
    if output is not None and output.lower() != "json":
        raise typer.BadParameter(f"{output!r} is no output format: there is json.")
    return output


def whole_number(text: str) -> int:
    """Read a number from the command line; what is none is named."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number.") from None


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="json", help="The same.", callback=_json_only),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True, slots=True)
class Session:
    """The options of the whole program.

    Attributes:
        profile: which profile to use instead of the active one.
        prompt: whether to ask; None: when there is somebody to ask.
    """

    profile: str | None = None
    prompt: bool | None = None

    def settings(self) -> Settings:
        """Read the environment and the profile.

        Raises:
            SettingsError: a setting or a profile that cannot be used, named.
        """
        from leasehold.settings import load, read

        if self.profile is None:
            return load()
        # A profile that is asked for by name wins over the environment; the active one does not.
        where = {"PREFECT_HOME", "PREFECT_PROFILES_PATH"} & os.environ.keys()
        chosen = {"PREFECT_PROFILE": self.profile}
        of_profile = read({**{name: os.environ[name] for name in where}, **chosen})
        return replace(load({**os.environ, **chosen}), **of_profile)

    def connect(self) -> SyncClient:
        """Open the administration of limits."""
        from leasehold.client.clients import get_client

        return get_client(sync_client=True, settings=self.settings())

    @property
    def may_ask(self) -> bool:
        """Whether there is somebody to ask."""
        if self.prompt is not None:
            return self.prompt
        return sys.stdin.isatty() and sys.stdout.isatty()


def slots_of(count: int) -> str:
    """Say a number of slots: ``1 slot``, ``2 slots``."""
    return f"{count} slot{'' if count == 1 else 's'}"


def confirm(question: str) -> None:
    """Ask on stderr, and end the program with exit code 1 unless the answer is yes."""
    typer.echo(f"{question} [y/N]: ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(1)
