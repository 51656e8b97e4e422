"""`hotpool pick`: ask Redis for a node of a pool, as a dispatcher does.

Registered by `__main__`. Reads only.
"""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer

from hotpool.lookup import Lookup, NoMember, Picked

EXIT_NONE = 1


def pick(
    pool: Annotated[str, typer.Argument(help="Name of the NodePool.")],
    redis: Annotated[str, typer.Option(envvar="HOTPOOL_REDIS_URL", help="redis://, rediss:// or unix://")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="The fleet.")] = "default",
    prefix: Annotated[str, typer.Option(envvar="HOTPOOL_REDIS_PREFIX")] = "hotpool",
    exclude: Annotated[list[str] | None, typer.Option(help="A node not to pick; may be repeated.")] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="name or json")] = "name",
) -> None:
    """Pick a node of a pool: Ready ones uniformly, Suspect ones last, Draining ones never.

    Ends with 0 and the node's name, or with 1 and the reason why there is none.

    Example: hotpool pick zh-en -n speech --redis redis://127.0.0.1:6379
    """
    found = asyncio.run(_pick(redis, namespace, prefix, pool, exclude or []))
    if output == "json":
        typer.echo(json.dumps(asdict(found)))
    elif isinstance(found, Picked):
        typer.echo(found.node)
    else:
        typer.echo(f"no member of pool {pool}: {found.reason}", err=True)
    if isinstance(found, NoMember):
        raise typer.Exit(EXIT_NONE)


async def _pick(url: str, namespace: str, prefix: str, pool: str, exclude: list[str]) -> Picked | NoMember:
    lookup = Lookup.from_url(url, namespace=namespace, prefix=prefix)
    try:
        return await lookup.pick(pool, exclude=exclude)
    finally:
        await lookup.close()
