"""The wait of a command for the state of a node, with its progress on standard error."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from hotpool.cli.options import CommandError
from hotpool.cli.query import find
from hotpool.common import exit_codes
from hotpool.core.model import Kind
from hotpool.kube.reader import Reader

Json = Mapping[str, Any]

_POLL_SECONDS: Final = 0.5


async def wait_for_node(
    reader: Reader,
    namespace: str,
    node: str,
    progress: Callable[[Json], str],
    seconds: float | None,
    late: Callable[[str], str],
) -> None:
    """Return when `progress` of the node is empty; it is what is waited for, as text, or raises CommandError.

    Raises CommandError with `late` of the last progress after `seconds`.
    """
    shown = ""
    try:
        async with asyncio.timeout(seconds):
            while text := progress(await find(reader, Kind.NODE, node, namespace)):
                if text != shown:
                    shown = text
                    click.echo(f"{node}: {text}", err=True)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise CommandError(f"{node}: {late(shown)}", exit_codes.NOT_YET) from None


def condition_of(node: Json, type_: str) -> Json:
    """Return a condition of a node; empty if it has none of the type."""
    conditions = (node.get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item.get("type") == type_), {})
