"""Tasks that live as long as a block, and work that a signal ends."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any


async def unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Do the work. Return False if `stop` is set before its end."""
    task, stopped = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for each in (task, stopped):
        each.cancel()
    await asyncio.gather(task, stopped, return_exceptions=True)
    if task.cancelled() or stop.is_set():
        return False
    task.result()
    return True


@asynccontextmanager
async def background(coroutines: Iterable[Any]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run tasks for the length of the block, then cancel them. Raises the error of a task that failed in the block."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
