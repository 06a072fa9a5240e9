"""``leasehold global-concurrency-limit``, short ``leasehold gcl``: limits by name."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leasehold.cli import completing
from leasehold.cli.output import ago, print_json, print_table
from leasehold.cli.session import Command, Json, Output, Session, Yes, confirm, whole_number

if TYPE_CHECKING:
    from leasehold.client.clients import SyncClient

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Global limits, for concurrency() and rate_limit().",
    short_help="Global limits.",
)

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The limit's name.", autocompletion=completing.names),
]


@app.command(cls=Command)
def create(
    ctx: typer.Context,
    name: Name,
    *,
    limit: Annotated[
        int,
        typer.Option("--limit", "-l", metavar="N", parser=whole_number, help="How many slots."),
    ],
    disable: Annotated[
        bool, typer.Option("--disable/--no-disable", help="Make it, but do not enforce it.")
    ] = False,
    active_slots: Annotated[
        int, typer.Option(metavar="N", parser=whole_number, help="Slots in use from the start.")
    ] = 0,
    slot_decay_per_second: Annotated[
        float,
        typer.Option(
            metavar="NUMBER", help="Slots that come back each second; above 0: a rate limit."
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Make a global limit."""
    from leasehold.client.models import GlobalConcurrencyLimitCreate

    wanted = GlobalConcurrencyLimitCreate(
        name=name,
        limit=limit,
        active=not disable,
        active_slots=active_slots,
        slot_decay_per_second=slot_decay_per_second,
    )
    with _connect(ctx) as client:
        client.create_global_concurrency_limit(wanted)
        if json:
            print_json(_described(client, name))
            return
    typer.echo(
        f"Created global limit {name!r}: {limit} slot{'' if limit == 1 else 's'}"
        f"{', not enforced' if disable else ''}. Kept at {client.address}."
    )


@app.command(cls=Command)
def ls(ctx: typer.Context, *, json: Json = False, output: Output = None) -> None:
    """List the global limits; those of tags are among them, as tag:TAG."""
    with _connect(ctx) as client:
        found = client.read_global_concurrency_limits(None)
    found.sort(key=lambda one: one.name)
    if json or output:
        print_json([one.model_dump(mode="json") for one in found])
    elif found:
        columns = ("name", "limit", "used", "enforced", "decay/s", "updated")
        rows = [
            (
                one.name,
                one.limit,
                one.active_slots,
                "yes" if one.active else "no",
                one.slot_decay_per_second or "-",
                ago(one.updated),
            )
            for one in found
        ]
        print_table(columns, rows)
    else:
        typer.echo(
            f"There is no limit at {client.address}. Make one: leasehold gcl create NAME --limit N",
            err=True,
        )


@app.command(cls=Command)
def inspect(
    ctx: typer.Context,
    name: Name,
    *,
    json: Json = False,
    output: Output = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write the JSON to this file.")
    ] = None,
) -> None:
    """Show a global limit."""
    if file is not None and not (json or output):
        raise typer.BadParameter("--file needs --json or --output json.")
    with _connect(ctx) as client:
        described = _described(client, name)
    if file is not None:
        _write(file, described)
    elif json or output:
        print_json(described)
    else:
        print_table(("property", "value"), list(described.items()))


@app.command(cls=Command)
def update(
    ctx: typer.Context,
    name: Name,
    *,
    enable: Annotated[
        bool, typer.Option("--enable/--no-enable", help="Enforce the limit.")
    ] = False,
    disable: Annotated[
        bool, typer.Option("--disable/--no-disable", help="Do not enforce the limit.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-l", metavar="N", parser=whole_number, help="How many slots."),
    ] = None,
    active_slots: Annotated[
        int | None, typer.Option(metavar="N", parser=whole_number, help="How many are in use.")
    ] = None,
    slot_decay_per_second: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Slots that come back each second.")
    ] = None,
    json: Json = False,
) -> None:
    """Change a global limit; what is not given stays."""
    if enable and disable:
        raise typer.BadParameter("--enable and --disable exclude each other.")
    changes: dict[str, Any] = {
        "active": True if enable else False if disable else None,
        "limit": limit,
        "active_slots": active_slots,
        "slot_decay_per_second": slot_decay_per_second,
    }
    changes = {field: value for field, value in changes.items() if value is not None}
    if not changes:
        typer.echo(
            "Error: nothing to change was given: --limit, --enable, --disable, --active-slots or "
            "--slot-decay-per-second.",
            err=True,
        )
        raise typer.Exit(1)
    _change(ctx, name, changes, f"Updated global limit {name!r}.", json=json)


@app.command(cls=Command)
def enable(ctx: typer.Context, name: Name, *, json: Json = False) -> None:
    """Enforce a global limit."""
    _switch(ctx, name, active=True, json=json)


@app.command(cls=Command)
def disable(ctx: typer.Context, name: Name, *, json: Json = False) -> None:
    """Stop enforcing a global limit, and keep it."""
    _switch(ctx, name, active=False, json=json)


@app.command(cls=Command)
def delete(ctx: typer.Context, name: Name, *, yes: Yes = False, json: Json = False) -> None:
    """Delete a global limit."""
    session: Session = ctx.obj
    with _connect(ctx) as client:
        if session.may_ask and not yes:
            client.read_global_concurrency_limit_by_name(name)
            confirm(f"Delete global limit {name!r}?")
        client.delete_global_concurrency_limit_by_name(name)
    if json:
        print_json({"name": name, "deleted": True})
    else:
        typer.echo(f"Deleted global limit {name!r}.")


def _connect(ctx: typer.Context) -> SyncClient:
    session: Session = ctx.obj
    return session.connect()


def _described(client: SyncClient, name: str) -> dict[str, Any]:
    return client.read_global_concurrency_limit_by_name(name).model_dump(mode="json")


def _switch(ctx: typer.Context, name: str, *, active: bool, json: bool) -> None:
    word = "enabled" if active else "disabled"
    with _connect(ctx) as client:
        if client.read_global_concurrency_limit_by_name(name).active is active:
            typer.echo(f"Error: global limit {name!r} is already {word}.", err=True)
            raise typer.Exit(1)
    done = f"{word.capitalize()} global limit {name!r}."
    _change(ctx, name, {"active": active}, done, json=json)


def _change(
    ctx: typer.Context, name: str, changes: dict[str, Any], done: str, *, json: bool
) -> None:
    from leasehold.client.models import GlobalConcurrencyLimitUpdate

    with _connect(ctx) as client:
        client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(**changes))
        if json:
            print_json(_described(client, name))
        else:
            typer.echo(done)


def _write(file: Path, described: dict[str, Any]) -> None:
    try:
        file.write_text(jsonlib.dumps(described, indent=2, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        typer.echo(f"Error: {file} cannot be written: {error.strerror}.", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"Wrote global limit {described['name']!r} to {file}.", err=True)
