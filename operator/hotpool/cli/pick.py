"""`hotpool pick`: ask Redis for a node of a pool, as a dispatcher does.

Registered by `__main__`. Reads only; the cluster is not asked.
"""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer

from hotpool.cli import manual
from hotpool.cli.options import ContextOption, KubeconfigOption, NamespaceOption, Output, OutputOption, Place, fail
from hotpool.lookup import Lookup, LookupFailed, NoMember, Picked

_HELP = manual.plain(
    {
        "A node of a pool": "hotpool pick zh-en -n speech --redis redis://127.0.0.1:6379",
        "Another one than edge-017, for a script": "hotpool pick zh-en --exclude edge-017 -o json | jq -r .node",
    },
    {
        manual.OK: "a node was picked",
        manual.NO_MEMBER: "there is none: the message says why",
        manual.USAGE: "wrong usage",
        manual.UNAVAILABLE: "Redis cannot be reached, or holds no projection",
    },
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command(cls=_HELP)
    def pick(
        pool: Annotated[str, typer.Argument(help="Name of the NodePool.")],
        *,
        redis: Annotated[str, typer.Option(envvar="HOTPOOL_REDIS_URL", help="redis://, rediss:// or unix://")],
        prefix: Annotated[str, typer.Option(envvar="HOTPOOL_REDIS_PREFIX", help="Of the keys in Redis.")] = "hotpool",
        exclude: Annotated[list[str] | None, typer.Option(help="A node not to pick; may be repeated.")] = None,
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
        output: OutputOption = Output.TEXT,
    ) -> None:
        """Pick a node of a pool, as a dispatcher does.

        Ready members uniformly, Suspect ones only when none is Ready, Draining ones never. Redis is asked, not the
        API server: a kubeconfig is only read for its namespace.
        """
        place = Place.of(namespace, kubeconfig, context)
        try:
            found = asyncio.run(_pick(redis, place.namespace, prefix, pool, exclude or []))
        except (LookupFailed, ValueError) as error:
            fail("pick", str(error), manual.UNAVAILABLE)
        if output is Output.JSON:
            typer.echo(json.dumps(asdict(found)))
        elif isinstance(found, Picked):
            typer.echo(found.node)
        else:
            typer.echo(f"no member of pool {pool}: {found.reason}", err=True)
        if isinstance(found, NoMember):
            raise typer.Exit(manual.NO_MEMBER)


async def _pick(url: str, namespace: str, prefix: str, pool: str, exclude: list[str]) -> Picked | NoMember:
    async with Lookup.from_url(url, namespace=namespace, prefix=prefix) as lookup:
        return await lookup.pick(pool, exclude=exclude)
