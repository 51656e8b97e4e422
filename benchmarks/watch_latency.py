"""When a watch tells what is waited for."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

from kubernetes.aio import client

from localfleet.fleet import GROUP

Facts = Iterable[tuple[str, int, bool]]
"""What an object says: of what, of which number, whether it is ready."""
_WATCH_SECONDS: Final = 3000.0


class Told:
    """When a watcher was told what is waited for."""

    def __init__(self) -> None:
        self._expected: dict[tuple[str, int, bool], asyncio.Future[float]] = {}

    def expect(self, where: str, number: int, *, ready: bool) -> asyncio.Future[float]:
        """The moment (monotonic seconds) at which `where` will be told that a node is ready, or is not."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._expected[where, number, ready] = future
        return future

    def tell(self, where: str, number: int, ready: bool) -> None:  # noqa: FBT001 - the value told.
        """A watcher was told."""
        future = self._expected.pop((where, number, ready), None)
        if future:
            future.set_result(time.monotonic())

    async def watch(self, listing: Callable[..., Awaitable[Any]], read: Callable[[Any], Facts]) -> None:
        """Tell of every event of a watch, for ever. `listing`: a list call of the client without preloaded content."""
        first = await listing()
        version = json.loads(await first.read())["metadata"]["resourceVersion"]
        answer = await listing(watch=True, resource_version=version, _request_timeout=_WATCH_SECONDS)
        async for line in _lines(answer):
            for fact in read(json.loads(line)["object"]):
                self.tell(*fact)


def ours(api: client.ApiClient, namespace: str, plural: str) -> Callable[..., Awaitable[Any]]:
    """The list call of one of our kinds."""
    objects = client.CustomObjectsApi(api)

    async def listing(**more: Any) -> Any:
        return await objects.list_namespaced_custom_object_without_preload_content(*GROUP, namespace, plural, **more)

    return listing


async def _lines(answer: Any) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
