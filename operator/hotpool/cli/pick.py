"""`hotpool pick`: pick of a node of a pool in Redis, as by a dispatcher. Reads only, and not from the API server."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final, cast

import click

from hotpool.cli.options import (
    FleetOptions,
    OutputFormat,
    RedisOptions,
    fail,
    fleet_options,
    redis_options,
)
from hotpool.cli.redis_age import confirmed_text, is_old
from hotpool.common import exit_codes
from hotpool.common.cli_help import EnumChoice, HelpSections, command, output_option
from hotpool.lookup import Lookup, LookupUnavailableError, NoMember, Picked, PickOptions, Reason, Strategy

_HELP: Final = HelpSections(
    examples={
        "A node of a pool": "hotpool pick zh-en -n speech --redis redis://127.0.0.1:6379",
        "Any node but edge-017, for a script": "hotpool pick zh-en --exclude edge-017 -o json | jq -r .node",
        "A node of the first pool that has one": "hotpool pick zh-en any-en -o json | jq -r .pool,.node",
        "A node of the pool that a generator made for a key": "hotpool pick speech/zh-en 'speech/*-en'",
        "A node, as soon as there is one within a minute": "hotpool pick zh-en --wait 60",
        "The node of a session": "hotpool pick zh-en --key session-42",
        "The address of a service, for a script": "curl http://$(hotpool pick zh-en --endpoint asr)/health",
        "An IPv6 address of it": "hotpool pick zh-en --endpoint asr --family 6",
        "The least loaded node, if Redis is up to date": "hotpool pick zh-en --strategy least-loaded --max-age 30",
    },
    codes={
        exit_codes.OK: "a node was picked, with --endpoint one that has such an endpoint",
        exit_codes.NO_MEMBER: "no node could be picked; the message has the reason",
        exit_codes.USAGE: "wrong usage",
        exit_codes.UNAVAILABLE: "Redis cannot be reached, or holds no projection",
        exit_codes.NOT_FOUND: "no operator has written to this prefix and namespace in Redis",
    },
)


@command(_HELP)
@click.argument("pools", metavar="POOL...", nargs=-1, required=True)
@redis_options("redis://, rediss:// or unix://", required=True)
@click.option("--strategy", type=EnumChoice(Strategy), help="Default: affinity with a key, else uniform.")
@click.option("--key", help="Affinity key, such as a session id.")
@click.option("--endpoint", "type_", metavar="TYPE", help="Print the address and port of a service of this type.")
@click.option("--family", type=click.Choice(["4", "6"]), help="IP version of the address. Needs --endpoint.")
@click.option("--exclude", multiple=True, help="Node to exclude; may be repeated.")
@click.option("--max-age", type=float, help="Pick no node if Redis is older than these seconds, or incomplete.")
@click.option("--wait", type=float, help="Seconds to wait for a node.")
@fleet_options
@output_option(OutputFormat)
def pick(
    *,
    pools: tuple[str, ...],
    redis: RedisOptions,
    strategy: Strategy | None,
    key: str | None,
    type_: str | None,
    family: str | None,
    exclude: tuple[str, ...],
    max_age: float | None,
    wait: float | None,
    fleet: FleetOptions,
    output: OutputFormat,
) -> None:
    """Pick a node of a pool, as a dispatcher does.

    Of several pools, the first one in order that has a node answers. GENERATOR/KEY is the pool that a generator made
    for a key; several such pools must be of one generator.

    The strategy picks a Ready member, a Suspect one only if none is Ready, and never a Draining one. With --endpoint it
    passes over nodes without an endpoint of that type. Nothing is reserved. The kubeconfig is only read for its
    namespace: the API server is not used. On a terminal, an old or incomplete projection is a warning.
    """
    if family and not type_:
        fail("pick", "--family needs --endpoint TYPE: it is the IP version of its address", exit_codes.USAGE)
    try:
        lookup = redis.lookup(fleet.namespace)
    except ValueError as error:
        fail("pick", str(error), exit_codes.USAGE)
    try:
        options = _options(strategy, key, exclude, max_age, wait) | _endpoint_options(type_, family)
        generator, names = _pools(pools)
        result = asyncio.run(_pick(lookup, generator, names, options))
    except LookupUnavailableError as error:
        fail("pick", str(error), exit_codes.UNAVAILABLE)
    except ValueError as error:
        fail("pick", str(error), exit_codes.USAGE)
    if sys.stderr.isatty() and (warning := _age_warning(result)):
        click.echo(warning, err=True)
    if output is OutputFormat.JSON:
        click.echo(json.dumps(asdict(result)))
    elif isinstance(result, Picked):
        click.echo(result.endpoints[type_][0].authority if type_ else result.node)
    else:
        for line in _reasons(result, fleet.namespace, type_, family):
            click.echo(line, err=True)
    if isinstance(result, NoMember):
        sys.exit(exit_codes.NOT_FOUND if result.reason is Reason.FLEET_UNKNOWN else exit_codes.NO_MEMBER)


def _pools(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the generator and the keys of `GENERATOR/KEY`, or an empty generator and names. Raises ValueError."""
    if not any("/" in word for word in words):
        return "", list(words)
    parts = [word.partition("/") for word in words]
    generators = {generator for generator, _, _ in parts}
    if len(generators) > 1 or not all(generator and key for generator, _, key in parts):
        raise ValueError("give names of pools, or GENERATOR/KEY of one generator: all pools are asked in one call")
    return generators.pop(), [key for *_, key in parts]


def _options(
    strategy: Strategy | None, key: str | None, exclude: Sequence[str], max_age: float | None, wait: float | None
) -> PickOptions:
    given = {"exclude": exclude, "strategy": strategy, "key": key, "max_age": max_age, "wait": wait}
    return cast("PickOptions", {name: value for name, value in given.items() if value is not None})


def _endpoint_options(type_: str | None, family: str | None) -> PickOptions:
    if type_ is None:
        return {}
    return {"types": [type_], "family": 6 if family == "6" else 4} if family else {"types": [type_]}


async def _pick(lookup: Lookup, generator: str, names: list[str], options: PickOptions) -> Picked | NoMember:
    asked = names if len(names) > 1 else names[0]
    async with lookup:
        return await (lookup.pick_key(generator, asked, **options) if generator else lookup.pick(asked, **options))


def _reasons(result: NoMember, namespace: str, type_: str | None, family: str | None) -> Iterator[str]:
    """Yield a line for each pool that was asked for, and one if the pick did not wait."""
    if result.reason is Reason.FLEET_UNKNOWN:
        yield (
            f"no fleet in namespace {namespace}: {result.reason}, no operator has written to this Redis for it; "
            "see -n, --prefix and --redis"
        )
        return
    for one in result.candidates or (result,):
        where = f"; see -n (namespace {namespace}) and --prefix" if one.reason is Reason.POOL_UNKNOWN else ""
        where += f"; `hotpool why --pool {one.pool}` names similar and deleted pools" if where else ""
        reason = _no_endpoint_reason(one, type_, family) or _no_member_reason(one)
        yield f"no member of pool {one.pool}: {reason}{where}"
    if result.wait_denied:
        yield "did not wait: the ACL of Redis denies this user a right (see docs/reference/redis.md)"


def _no_endpoint_reason(result: NoMember, type_: str | None, family: str | None) -> str:
    """Return the reason NoEndpoint with its count and what to do, empty for another reason."""
    if result.reason is not Reason.NO_ENDPOINT:
        return ""
    wanted = f"{f'IPv{family} ' if family else ''}endpoint{f' of type {type_}' if type_ else ' of each required type'}"
    looked_at, usable = result.counts.no_endpoint, result.counts.members - result.counts.draining
    return (
        f"{result.reason}: {looked_at} of {usable} members looked at, none has an {wanted}; "
        "`hotpool why NODE` names the reason"
    )


def _no_member_reason(result: NoMember) -> str:
    if result.reason is not Reason.STALE:
        return result.reason
    age = "of unknown age" if result.age_seconds is None else f"{result.age_seconds:.0f} s old"
    return f"{result.reason}, {age}{'' if result.complete else ', incomplete'}"


def _age_warning(result: Picked | NoMember) -> str:
    """Return a warning for people if Redis is old or incomplete; empty if it is not, or if that is the reason."""
    if isinstance(result, NoMember) and result.reason is Reason.STALE:
        return ""
    if is_old(result.age_seconds):
        return f"warning: Redis was {confirmed_text(result.age_seconds)}: this may be old; see hotpool status"
    return "" if result.complete else "warning: Redis is incomplete, and being rebuilt: pools may be missing"
