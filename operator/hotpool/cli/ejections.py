"""Ejected services from Redis, for `why` and `top` (requirement E8)."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpool.lookup import Ejection, Lookup


async def read_ejections(open_lookup: "Callable[[], Lookup]") -> "tuple[Ejection, ...] | None":
    """Return the services that dispatchers pick last. If Redis fails, print a warning and return None."""
    from hotpool.lookup import LookupUnavailableError

    try:
        async with open_lookup() as lookup:
            return await lookup.ejections()
    except (LookupUnavailableError, ValueError) as error:
        click.echo(f"warning: nothing is read from Redis: {error}", err=True)
        return None
