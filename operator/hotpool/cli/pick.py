"""`hotpool pick`: pick of a node of a pool in Redis, as by a dispatcher. Reads only, and not from the API server."""

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
        "Any node but edge-017, for a script": "hotpool pick zh-en --exclude edge-017 -o json | jq -r .node",
        "The node of a session": "hotpool pick zh-en --key session-42",
        "The least loaded node, if Redis is up to date": "hotpool pick zh-en --strategy least-loaded --max-age 30",
    },
    codes={
        exit_codes.OK: "a node was picked",
        exit_codes.NO_MEMBER: "no node could be picked; the message has the reason",
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
        prefix: Annotated[
            str, typer.Option(envvar="HOTPOOL_REDIS_PREFIX", help="Prefix of the keys in Redis.")
        ] = "hotpool",
        strategy: Annotated[
            Strategy | None, typer.Option(help="Default: affinity with a key, else uniform.", show_default=False)
        ] = None,
        key: Annotated[str | None, typer.Option(help="Affinity key, such as a session id.")] = None,
        exclude: Annotated[list[str] | None, typer.Option(help="Node to exclude; may be repeated.")] = None,
        max_age: Annotated[
            float | None, typer.Option(help="Pick no node if Redis is older than these seconds, or incomplete.")
        ] = None,
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
        output: OutputOption = OutputFormat.TEXT,
    ) -> None:
        """Pick a node of a pool, as a dispatcher does.

        The strategy picks a Ready member, a Suspect one only if none is Ready, and never a Draining one. Nothing is
        reserved. The kubeconfig is only read for its namespace: the API server is not used.
        """
        fleet = FleetOptions.of(namespace, kubeconfig, context)
        try:
            lookup = Lookup.from_url(redis, namespace=fleet.namespace, prefix=prefix)
        except ValueError as error:
            fail("pick", str(error), exit_codes.UNAVAILABLE)
        try:
            result = asyncio.run(_pick(lookup, pool, _options(strategy, key, exclude or [], max_age)))
        except LookupUnavailableError as error:
            fail("pick", str(error), exit_codes.UNAVAILABLE)
        except ValueError as error:
            fail("pick", str(error), exit_codes.USAGE)
        if output is OutputFormat.JSON:
            typer.echo(json.dumps(asdict(result)))
        elif isinstance(result, Picked):
            typer.echo(result.node)
        else:
            typer.echo(f"no member of pool {pool}: {_no_member_reason(result)}", err=True)
        if isinstance(result, NoMember):
            raise typer.Exit(exit_codes.NO_MEMBER)


def _options(strategy: Strategy | None, key: str | None, exclude: list[str], max_age: float | None) -> PickOptions:
    options: PickOptions = {"exclude": exclude}
    if strategy:
        options["strategy"] = strategy
    if key is not None:
        options["key"] = key
    if max_age is not None:
        options["max_age"] = max_age
    return options


async def _pick(lookup: Lookup, pool: str, options: PickOptions) -> Picked | NoMember:
    async with lookup:
        return await lookup.pick(pool, **options)


def _no_member_reason(result: NoMember) -> str:
    if result.reason is not Reason.STALE:
        return result.reason
    age = "of unknown age" if result.age_seconds is None else f"{result.age_seconds:.0f} s old"
    return f"{result.reason}, {age}{'' if result.complete else ', incomplete'}"
