"""`hotpool top --watch`: the tables again and again, on the whole terminal."""

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
from hotpool.cli.render.top_rows import NodeRow, PoolRow
from hotpool.kube.client import ApiUnavailable

REFRESH_SECONDS: Final = 2.0
REFRESH_DUTY_FACTOR: Final = 4
"""A look that took long is followed by a pause of so many times as long: a glance must not burden a large fleet."""

Look = Callable[[], Awaitable[tuple[list[NodeRow] | None, list[PoolRow] | None]]]


async def watch(look: Look, limit: int | None, namespace: str) -> None:
    """Look until cancelled. While the API server is away, the last look stays, under a line with the trouble."""
    shown: list[Group] = []
    with Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            began = monotonic()
            try:
                nodes, pools = await look()
                shown = [tables(nodes, pools, limit=limit, live=True)]
                words = Text(f"{datetime.now().astimezone():%H:%M:%S}  namespace {namespace}  Ctrl-C ends", "dim")
            except ApiUnavailable as error:
                if not shown:
                    raise
                words = Text(f"{error_message(error, namespace)[0]}; trying again", BAD)
            live.update(Group(words, *shown), refresh=True)
            await asyncio.sleep(max(REFRESH_SECONDS, REFRESH_DUTY_FACTOR * (monotonic() - began)))
