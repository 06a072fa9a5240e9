"""``leasehold doctor``: what is wrong with limits, and mending it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leasehold.cli import completing
from leasehold.cli.output import print_json
from leasehold.cli.session import Json, Session, slots_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasehold.client.clients import SyncClient
    from leasehold.client.doctor import Finding, Look


def examine(
    ctx: typer.Context,
    tags: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TAG",
            help="Only the limits of these; else all limits.",
            autocompletion=completing.tags,
        ),
    ] = None,
    *,
    wait: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Time between two looks: only what both show counts."
        ),
    ] = 5.0,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is wrong.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --fix: mend what may be live work, too."),
    ] = False,
    json: Json = False,
) -> None:
    """Find slots that nobody holds any more, and limits that admit nobody.

    Looks for counters that differ from the list of holders, holders whose run is over or unknown,
    and limits of 0. What live work may look like too is called a suspicion, and mended only with
    --force. The exit code is 1 when something is wrong and was not mended.

    A run that the server takes for running is believed. Where its process was killed, set its flow
    run to Crashed or cancel it, and ask again: leasehold limit inspect TAG shows the holders.
    """
    if force and not fix:
        raise typer.BadParameter("--force needs --fix.")
    session: Session = ctx.obj
    with session.connect() as client:
        look, found = _look_twice(client, tags or (), wait, quiet=json)
        reports = [_report(client, one, mend=fix and (force or not one.suspicion)) for one in found]
        address = client.address
    if json:
        print_json(reports)
    else:
        _print(reports, look, address)
    if not all(one["mended"] for one in reports):
        raise typer.Exit(1)


def _look_twice(
    client: SyncClient, tags: Sequence[str], wait: float, *, quiet: bool
) -> tuple[Look, list[Finding]]:
    from leasehold.client.doctor import findings

    look = client.examine_limits(tags)
    found = findings(look, look)
    if any(one.mendable for one in found):
        if not quiet:
            typer.echo(f"Something is odd. Looking again in {wait:g} s.", err=True)
        time.sleep(wait)
        found = findings(look, client.examine_limits(tags))
    return look, found


def _report(client: SyncClient, finding: Finding, *, mend: bool) -> dict[str, Any]:
    """Mend, where that is wanted and possible; say how much is used before and after."""
    before = after = _state(client, finding)
    mended = mend and finding.mendable
    if mended:
        client.mend_limit(finding)
        after = _state(client, finding)
    return {
        **finding.model_dump(mode="json"),
        "tag": finding.tag,
        "before": before,
        "after": after,
        "mended": mended,
    }


def _state(client: SyncClient, finding: Finding) -> dict[str, int] | None:
    from leasehold.exceptions import LimitNotFoundError

    if finding.tag is None:
        return None
    try:
        use = client.read_concurrency_limit_use(finding.tag)
    except LimitNotFoundError:
        return None
    return {
        "limit": use.limit.concurrency_limit,
        "used": use.used,
        "task_runs": len(use.limit.active_slots),
    }


def _print(reports: list[dict[str, Any]], look: Look, address: str) -> None:
    count = len(look.tags) + len(look.others)
    if not reports:
        typer.echo(f"Nothing is wrong at {address}: limits looked at: {count}.")
        return
    for one in reports:
        typer.echo(f"{'Suspicion' if one['suspicion'] else 'Finding'}: {one['explanation']}")
        if one["mended"]:
            typer.echo(f"  before: {_described(one['before'])}")
            typer.echo(f"  after:  {_described(one['after'])}")
    left = [one for one in reports if not one["mended"]]
    typer.echo(f"{len(reports)} found at {address}, {len(reports) - len(left)} mended.")
    if any(one["mendable"] and not one["suspicion"] for one in left):
        typer.echo("To mend: leasehold doctor --fix", err=True)
    if any(one["mendable"] and one["suspicion"] for one in left):
        typer.echo("When no such work runs: leasehold doctor --fix --force", err=True)


def _described(state: dict[str, int] | None) -> str:
    if state is None:
        return "no such limit"
    runs = state["task_runs"]
    holders = f"{runs} task run{'' if runs == 1 else 's'} listed"
    return f"{state['used']} of {slots_of(state['limit'])} in use, {holders}"
