"""``leasehold concurrency-limit``, short ``leasehold limit``: limits of tags."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leasehold.cli.output import ago, print_json, print_table
from leasehold.cli.session import Command, Json, Output, Session, Yes, confirm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasehold.client.clients import SyncClient
    from leasehold.client.models import ConcurrencyLimit, RunHolder

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Limits of tags: how many tasks with a tag may run at once.",
    short_help="Limits of tags.",
)

Tag = Annotated[str, typer.Argument(metavar="TAG", help="The tag.")]
Size = Annotated[
    int,
    typer.Argument(metavar="CONCURRENCY_LIMIT", help="How many may run at once."),
]

#: A negative number is no option, but a wrong number: it gets an answer that says so.
_NEGATIVE_NUMBERS = {"ignore_unknown_options": True}


@app.command(cls=Command, context_settings=_NEGATIVE_NUMBERS)
def create(ctx: typer.Context, tag: Tag, concurrency_limit: Size, *, json: Json = False) -> None:
    """Make a tag's limit; change it where there is one."""
    with _connect(ctx) as client:
        before = _size(client, tag)
        client.create_concurrency_limit(tag, concurrency_limit)
        if json:
            print_json(_described(client, tag))
            return
    if before is None:
        done = f"Created the limit for tag {tag!r}: {_at_once(concurrency_limit)}."
    else:
        done = f"Tag {tag!r} had a limit of {before}; now {_at_once(concurrency_limit)}."
    typer.echo(f"{done} Kept at {client.address}.")


@app.command(cls=Command, context_settings=_NEGATIVE_NUMBERS)
def update(ctx: typer.Context, tag: Tag, concurrency_limit: Size, *, json: Json = False) -> None:
    """Change a tag's limit. Tasks that hold a slot go on."""
    with _connect(ctx) as client:
        client.update_concurrency_limit(tag, concurrency_limit)
        if json:
            print_json(_described(client, tag))
            return
    typer.echo(f"Updated the limit for tag {tag!r}: {_at_once(concurrency_limit)}.")


@app.command(cls=Command)
def ls(
    ctx: typer.Context,
    *,
    limit: Annotated[
        int | None, typer.Option(min=0, help="List at most so many.", show_default="all")
    ] = None,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many first.")] = 0,
    json: Json = False,
    output: Output = None,
) -> None:
    """List the limits of tags, and how much of each is used."""
    with _connect(ctx) as client:
        found = client.read_concurrency_limits(limit, offset)
        used = _used(client) if found else {}
    found.sort(key=lambda one: one.tag)
    if json or output:
        print_json([_as_json(one, used.get(one.tag)) for one in found])
    elif found:
        rows = [
            (one.tag, one.concurrency_limit, used.get(one.tag, "?"), len(one.active_slots))
            for one in found
        ]
        print_table(("tag", "limit", "used", "task runs"), rows)
    elif offset or limit == 0:
        typer.echo("Nothing to list there.", err=True)
    else:
        typer.echo(
            f"No tag has a limit at {client.address}. Make one: leasehold limit create TAG N",
            err=True,
        )


@app.command(cls=Command)
def inspect(ctx: typer.Context, tag: Tag, *, json: Json = False, output: Output = None) -> None:
    """Show a tag's limit, and who holds its slots."""
    with _connect(ctx) as client:
        described = _described(client, tag)
        holders = client.read_concurrency_limit_holders(tag)
    if json or output:
        print_json({**described, "holders": [one.model_dump(mode="json") for one in holders]})
        return
    used, size = described["used"], described["concurrency_limit"]
    typer.echo(f"Tag {tag!r}: {used} of {size} slots in use, at {client.address}.")
    if holders:
        print_table(("task run", "name", "state", "started"), [_row(one) for one in holders])
    _explain(used, size, holders, embedded=client.settings.api_url is None)


@app.command(cls=Command)
def reset(ctx: typer.Context, tag: Tag, *, yes: Yes = False, json: Json = False) -> None:
    """Take a tag's slots from all who hold them."""
    session: Session = ctx.obj
    with _connect(ctx) as client:
        used = _described(client, tag)["used"]
        if used and not yes:
            _allow_reset(session, tag, used)
        client.reset_concurrency_limit_by_tag(tag)
        if json:
            print_json(_described(client, tag))
            return
    freed = f"{_slots(used)} freed" if used else "no slot was in use"
    typer.echo(f"Reset the limit for tag {tag!r}: {freed}.")


@app.command(cls=Command)
def delete(ctx: typer.Context, tag: Tag, *, yes: Yes = False, json: Json = False) -> None:
    """Delete a tag's limit: then any number may run."""
    session: Session = ctx.obj
    with _connect(ctx) as client:
        if session.may_ask and not yes:
            client.read_concurrency_limit_by_tag(tag)
            confirm(f"Delete the limit for tag {tag!r}?")
        client.delete_concurrency_limit_by_tag(tag)
    if json:
        print_json({"tag": tag, "deleted": True})
    else:
        typer.echo(f"Deleted the limit for tag {tag!r}: any number may run now.")


def _connect(ctx: typer.Context) -> SyncClient:
    session: Session = ctx.obj
    return session.connect()


def _allow_reset(session: Session, tag: str, used: int) -> None:
    consequence = (
        f"{_slots(used)} of tag {tag!r} {'is' if used == 1 else 'are'} in use. Tasks that hold one "
        "go on, so that more may run at once than the limit says."
    )
    if session.may_ask:
        confirm(f"{consequence} Reset all the same?")
        return
    typer.echo(
        f"Error: {consequence} Nothing was changed; to reset all the same: "
        f"leasehold limit reset {shlex.quote(tag)} --yes",
        err=True,
    )
    raise typer.Exit(1)


def _size(client: SyncClient, tag: str) -> int | None:
    from leasehold.client.names import check_tag
    from leasehold.exceptions import LimitNotFoundError

    try:
        return client.read_concurrency_limit_by_tag(check_tag(tag)).concurrency_limit
    except LimitNotFoundError:
        return None


def _used(client: SyncClient) -> dict[str, int]:
    """Count the slots in use by tag. The limits of tags themselves list task runs only."""
    return {
        one.name.removeprefix("tag:"): one.active_slots
        for one in client.read_global_concurrency_limits(None)
        if one.name.startswith("tag:")
    }


def _described(client: SyncClient, tag: str) -> dict[str, Any]:
    limit = client.read_concurrency_limit_by_tag(tag)
    counted = client.read_global_concurrency_limit_by_name(f"tag:{tag}")
    return _as_json(limit, counted.active_slots)


def _as_json(limit: ConcurrencyLimit, used: int | None) -> dict[str, Any]:
    return {**limit.model_dump(mode="json"), "used": used}


def _row(holder: RunHolder) -> tuple[str, str, str, str]:
    return str(holder.id), holder.name or "-", holder.state or "-", ago(holder.since) or "-"


def _explain(used: int, size: int, holders: Sequence[RunHolder], *, embedded: bool) -> None:
    if not size:
        typer.echo("A limit of 0 admits nobody: tasks with this tag fail.")
    if not used:
        return
    if used > len(holders):
        others = _slots(used - len(holders))
        typer.echo(f"{others} held by what is not listed: a flow, or a holder that is gone.")
    if embedded:
        typer.echo("A slot comes back when its holder's process ends, or no longer reports.")
        return
    if any(one.name is None for one in holders):
        typer.echo("Runs without a name are not known to the server; runs of leasehold never are.")
    typer.echo(
        "A slot held by a lease expires when its holder no longer reports; one taken through the "
        "old tag calls never does. The server does not say which is which."
    )


def _at_once(size: int) -> str:
    return f"at most {size} at once" if size else "nobody is admitted (0)"


def _slots(count: int) -> str:
    return f"{count} slot{'' if count == 1 else 's'}"
