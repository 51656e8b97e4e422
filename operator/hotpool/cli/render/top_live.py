"""Output of `hotpool top --watch`: tables on the whole terminal, refreshed periodically."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from time import monotonic
from typing import Final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from hotpool.cli.query import error_message
from hotpool.cli.render.tables import BAD, console
from hotpool.cli.render.top import tables
from hotpool.cli.render.top_rows import Rows
from hotpool.kube.client import ApiUnavailable

REFRESH_SECONDS: Final = 2.0
REFRESH_DUTY_FACTOR: Final = 4
"""Pause after a read, as a multiple of its duration, so that reads of a large fleet do not burden the API server."""

ReadRows = Callable[[], Awaitable[Rows]]


async def watch(read_rows: ReadRows, limit: int | None, namespace: str) -> None:
    """Refresh until cancelled. While the API server fails, keep the last tables below a line with the error."""
    shown: list[Group] = []
    with Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            started = monotonic()
            try:
                shown = [tables(await read_rows(), limit=limit, live=True)]
                header = Text(f"{datetime.now().astimezone():%H:%M:%S}  namespace {namespace}  Ctrl-C to end", "dim")
            except ApiUnavailable as error:
                if not shown:
                    raise
                header = Text(f"{error_message(error, namespace)[0]}; retrying", BAD)
            live.update(Group(header, *shown), refresh=True)
            await asyncio.sleep(max(REFRESH_SECONDS, REFRESH_DUTY_FACTOR * (monotonic() - started)))
