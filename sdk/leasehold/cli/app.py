"""The program: its groups of commands, and the one place where errors become a line on stderr."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from leasehold import __version__
from leasehold.cli import doctor, global_limits, run, server, tag_limits
from leasehold.cli.rewriting import session_first
from leasehold.cli.session import Session
from leasehold.exceptions import LeaseholdError

#: In this order people meet them; the rest are long names of the same.
_FIRST: Final = ["limit", "gcl", "run", "server", "doctor"]


class _Program(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, session_first(args))

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LeaseholdError as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    # Plain text: one line says what is wrong, and a pipe or a log gets the same as a terminal.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def program(
    ctx: typer.Context,
    *,
    profile: Annotated[
        str | None,
        typer.Option("--profile", "-p", metavar="NAME", help="Use this profile of profiles.toml."),
    ] = None,
    prompt: Annotated[
        bool | None,
        typer.Option(
            help="Ask before something is lost. Default: on a terminal.",
            envvar="PREFECT_CLI_PROMPT",
            show_default=False,
            show_envvar=False,
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Limits on tasks that run at once: see them, change them, and run flows under them."""
    ctx.obj = Session(profile, prompt=prompt)


app.add_typer(tag_limits.app, name="limit")
app.add_typer(global_limits.app, name="gcl")
app.command(name="server", short_help="Show where limits are kept.")(server.show)
app.command(name="doctor", short_help="Find slots that nobody holds any more.")(doctor.examine)
app.command(name="run", short_help="Run a flow from a file.")(run.run)

#: The names that scripts written for `prefect` use.
app.add_typer(tag_limits.app, name="concurrency-limit", short_help="The same as limit.")
app.add_typer(tag_limits.app, name="concurrency-limits", hidden=True)
app.add_typer(global_limits.app, name="global-concurrency-limit", short_help="The same as gcl.")
