"""``leasehold server``: where limits are kept, and why there."""

from __future__ import annotations

import typer

from leasehold.cli.output import print_json
from leasehold.cli.session import Json, Session  # noqa: TC001 - typer reads the annotations


def show(ctx: typer.Context, *, json: Json = False) -> None:
    """Show where limits are kept, how slots are held there, and why."""
    session: Session = ctx.obj
    with session.connect() as client:
        server = client.read_server()
        # Reading once tells whether we may, and whether the ledger's file can be used.
        client.read_global_concurrency_limits(1)
        settings = client.settings
    values = {
        "address": settings.api_url or str(settings.ledger_path),
        "embedded": settings.api_url is None,
        "source": settings.source if settings.api_url else "PREFECT_API_URL is not set",
        "version": None if server.version is None else str(server.version),
        "dialect": server.name,
        "tags": server.tags.name,
        "others": server.plain.name,
        "why": server.why,
    }
    if json:
        print_json(values)
        return
    unsaid = "none: no server is needed" if settings.api_url is None else "not asked"
    typer.echo(f"Limits are kept at: {settings.address}")
    typer.echo(f"Set by:             {values['source']}")
    typer.echo(f"Prefect version:    {values['version'] or unsaid}")
    typer.echo(f"Dialect:            {server.name}")
    typer.echo(f"Slots are held:     {server.summary}")
