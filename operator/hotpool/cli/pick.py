"""`hotpool pick`: ask Redis for a node of a pool, as a dispatcher does.

Reads only; the cluster is not asked.
"""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated, Final

import typer

from hotpool.cli.options import (
    ContextOption,
    FleetOptions,
    KubeconfigOption,
    NamespaceOption,
    OutputFormat,
    OutputOption,
    fail,
)
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command
from hotpool.lookup import Lookup, LookupUnavailableError, NoMember, Picked, PickOptions, Reason, Strategy

_HELP: Final = HelpSections(
    examples={
        "A node of a pool": "hotpool pick zh-en -n speech --redis redis://127.0.0.1:6379",
        "Another one than edge-017, for a script": "hotpool pick zh-en --exclude edge-017 -o json | jq -r .node",
        "The one that a session stays on": "hotpool pick zh-en --key session-42",
        "The least loaded one, if what Redis says is good": "hotpool pick zh-en --strategy least-loaded --max-age 30",
    },
    codes={
        exit_codes.OK: "a node was picked",
        exit_codes.NO_MEMBER: "there is none: the message says why",
        exit_codes.USAGE: "wrong usage",
        exit_codes.UNAVAILABLE: "Redis cannot be reached, or holds no projection",
    },
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command(cls=command(_HELP))
    def pick(
        pool: Annotated[str, typer.Argument(help="Name of the NodePool.")],
        *,
        redis: Annotated[str, typer.Option(envvar="HOTPOOL_REDIS_URL", help="redis://, rediss:// or unix://")],
        prefix: Annotated[str, typer.Option(envvar="HOTPOOL_REDIS_PREFIX", help="Of the keys in Redis.")] = "hotpool",
        strategy: Annotated[
            Strategy | None, typer.Option(help="Default: affinity with a key, else uniform.", show_default=False)
        ] = None,
        key: Annotated[str | None, typer.Option(help="For affinity: what stays on one node.")] = None,
        exclude: Annotated[list[str] | None, typer.Option(help="A node not to pick; may be repeated.")] = None,
        max_age: Annotated[
            float | None, typer.Option(help="Seconds: none, if Redis is older than this, or incomplete.")
        ] = None,
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
        output: OutputOption = OutputFormat.TEXT,
    ) -> None:
        """Pick a node of a pool, as a dispatcher does.

        Ready members by the strategy, Suspect ones only when none is Ready, Draining ones never. Nothing is reserved.
        Redis is asked, not the API server: a kubeconfig is only read for its namespace.
        """
        place = FleetOptions.of(namespace, kubeconfig, context)
        try:
            lookup = Lookup.from_url(redis, namespace=place.namespace, prefix=prefix)
        except ValueError as error:
            fail("pick", str(error), exit_codes.UNAVAILABLE)
        try:
            found = asyncio.run(_pick(lookup, pool, _options(strategy, key, exclude or [], max_age)))
        except LookupUnavailableError as error:
            fail("pick", str(error), exit_codes.UNAVAILABLE)
        except ValueError as error:
            fail("pick", str(error), exit_codes.USAGE)
        if output is OutputFormat.JSON:
            typer.echo(json.dumps(asdict(found)))
        elif isinstance(found, Picked):
            typer.echo(found.node)
        else:
            typer.echo(f"no member of pool {pool}: {_no_member_reason(found)}", err=True)
        if isinstance(found, NoMember):
            raise typer.Exit(exit_codes.NO_MEMBER)


def _options(strategy: Strategy | None, key: str | None, exclude: list[str], max_age: float | None) -> PickOptions:
    how: PickOptions = {"exclude": exclude}
    if strategy:
        how["strategy"] = strategy
    if key is not None:
        how["key"] = key
    if max_age is not None:
        how["max_age"] = max_age
    return how


async def _pick(lookup: Lookup, pool: str, how: PickOptions) -> Picked | NoMember:
    async with lookup:
        return await lookup.pick(pool, **how)


def _no_member_reason(found: NoMember) -> str:
    if found.reason is not Reason.STALE:
        return found.reason
    age = "of unknown age" if found.age_seconds is None else f"{found.age_seconds:.0f} s old"
    return f"{found.reason}, {age}{'' if found.complete else ', incomplete'}"
