"""``leasehold concurrency-limit``, short ``leasehold limit``: limits of tags."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leasehold.cli import completing
from leasehold.cli.output import ago, print_json, print_table
from leasehold.cli.session import (
    Command,
    Json,
    Output,
    Session,
    Yes,
    confirm,
    slots_of,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasehold.client.clients import SyncClient
    from leasehold.client.models import ConcurrencyLimitUse, RunHolder

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Limits of tags: how many tasks with a tag may run at once.",
    short_help="Limits of tags.",
)

Tag = Annotated[str, typer.Argument(metavar="TAG", help="The tag.", autocompletion=completing.tags)]
Size = Annotated[
    int,
    typer.Argument(
        metavar="CONCURRENCY_LIMIT", parser=whole_number, help="How many may run at once."
    ),
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
        int | None,
        typer.Option(min=0, metavar="N", help="List at most so many.", show_default="all"),
    ] = None,
    offset: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out so many first.")] = 0,
    json: Json = False,
    output: Output = None,
) -> None:
    """List the limits of tags, and how much of each is used."""
    with _connect(ctx) as client:
        found = client.read_concurrency_limit_uses(limit, offset)
    if json or output:
        print_json([_as_json(one) for one in found])
    elif found:
        rows = [
            (one.limit.tag, one.limit.concurrency_limit, one.used, len(one.limit.active_slots))
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
        use = client.read_concurrency_limit_use(tag)
        holders = client.read_concurrency_limit_holders(tag)
        on_ledger = client.settings.api_url is None
    if json or output:
        print_json({**_as_json(use), "holders": [one.model_dump(mode="json") for one in holders]})
        return
    size = use.limit.concurrency_limit
    typer.echo(f"Tag {tag!r}: {use.used} of {slots_of(size)} in use, at {client.address}.")
    if holders:
        columns = ("task run", "name", "state", "since", "expires")
        print_table(columns, [_row(one) for one in holders])
    _explain(use, holders, on_ledger=on_ledger)


@app.command(cls=Command)
def reset(ctx: typer.Context, tag: Tag, *, yes: Yes = False, json: Json = False) -> None:
    """Take a tag's slots from all who hold them."""
    session: Session = ctx.obj
    with _connect(ctx) as client:
        used = client.read_concurrency_limit_use(tag).used
        if used and not yes:
            _allow_reset(session, tag, used)
        client.reset_concurrency_limit_by_tag(tag)
        if json:
            print_json(_described(client, tag))
            return
    freed = f"{slots_of(used)} freed" if used else "no slot was in use"
    typer.echo(f"Reset the limit for tag {tag!r}: {freed}.")


@app.command(cls=Command)
def convert(
    ctx: typer.Context,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; else only say what it does.")] = (
        False
    ),
    json: Json = False,
) -> None:
    """Have tags held by leases on a server 3.4.9 - 3.4.18.

    Such a server has leases, but not for tags. This makes each tag's limit a global limit tag:TAG
    as well; from then on tasks of leasehold use leases there. It is refused while a slot is held.

    Programs that are running notice within a minute. Clients on the old path (Prefect's own, and
    old ones of ours) go on using the old limit, which stays: they and leasehold count apart then,
    so that up to twice the limit may run until these clients are gone too. limit create, update
    and delete change both. An upgrade of the server later needs no other step: it keeps the global
    limits and removes the old ones. To undo: leasehold gcl delete tag:TAG, for all tags.
    """
    with _connect(ctx) as client:
        found = client.convert_limits() if apply else client.read_unconverted_limits()
        server = client.read_server()
    if json:
        print_json({"applied": apply, "tags": [_as_json(one) for one in found]})
    elif not found:
        why = "all tags are converted" if server.may_be_converted else server.why
        typer.echo(f"Nothing to do at {client.address}: {why}.")
    elif apply:
        for one in found:
            typer.echo(f"Converted tag {one.limit.tag!r}: {_at_once(one.limit.concurrency_limit)}.")
        typer.echo("Running programs notice within a minute. Old clients count apart: see --help.")
    else:
        rows = [
            (one.limit.tag, one.limit.concurrency_limit, f"tag:{one.limit.tag}", one.used)
            for one in found
        ]
        print_table(("tag", "limit", "becomes", "held now"), rows)
        typer.echo(_next_step(sum(one.used for one in found)))


def _next_step(held: int) -> str:
    if held:
        return f"Not now: {slots_of(held)} held. Nothing was changed."
    return (
        "Nothing was changed. With --apply, tasks of leasehold hold these by leases; clients on "
        "the old path go on counting apart, up to the limit once more: see --help."
    )


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
        f"{slots_of(used)} of tag {tag!r} {'is' if used == 1 else 'are'} in use. Tasks that hold "
        "one go on, so that more may run at once than the limit says."
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


def _described(client: SyncClient, tag: str) -> dict[str, Any]:
    return _as_json(client.read_concurrency_limit_use(tag))


def _as_json(use: ConcurrencyLimitUse) -> dict[str, Any]:
    return {**use.limit.model_dump(mode="json"), "used": use.used}


def _row(holder: RunHolder) -> tuple[str, ...]:
    name = "a task of leasehold" if holder.is_ours else holder.name or "-"
    expires = {True: "yes", False: "no", None: "?"}[holder.expires]
    return str(holder.id), name, holder.state or "-", ago(holder.since) or "-", expires


def _explain(use: ConcurrencyLimitUse, holders: Sequence[RunHolder], *, on_ledger: bool) -> None:
    if not use.limit.concurrency_limit:
        typer.echo("A limit of 0 admits nobody: tasks with this tag fail.")
    if use.unlisted > 0:
        others = "leases, which this server does not list"
        if use.is_shared:
            others = "what is not listed: a flow, or a holder that is gone (leasehold doctor)"
        typer.echo(f"{slots_of(use.unlisted)} held by {others}.")
    if any(one.expires for one in holders):
        until = "its process has ended" if on_ledger else "its holder no longer reports"
        typer.echo(f"expires, yes: the slot comes back when {until}.")
    if any(one.expires is False for one in holders):
        typer.echo("expires, no: a slot taken by the old tag calls stays until it is given back.")
    if any(one.expires is None for one in holders):
        typer.echo(
            "expires, ?: the server does not say. A slot held by a lease comes back when its "
            "holder no longer reports; one taken by the old tag calls does not."
        )


def _at_once(size: int) -> str:
    return f"at most {size} at once" if size else "nobody is admitted (0)"
