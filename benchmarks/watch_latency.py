"""Arrival times of expected states in watches."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

from kubernetes.aio import client

from localfleet.fleet import GROUP

Observations = Iterable[tuple[str, int, bool]]
"""States read from an object: place, number, ready."""
_WATCH_SECONDS: Final = 3000.0


class ArrivalTimes:
    """Times at which expected states arrive."""

    def __init__(self) -> None:
        self._expected: dict[tuple[str, int, bool], asyncio.Future[float]] = {}

    def expect(self, where: str, number: int, *, ready: bool) -> asyncio.Future[float]:
        """Return a future of the time (monotonic seconds) at which `where` shows the node ready, or not ready."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._expected[where, number, ready] = future
        return future

    def record(self, where: str, number: int, ready: bool) -> None:  # noqa: FBT001 - the observed value.
        """Record the arrival of a state."""
        future = self._expected.pop((where, number, ready), None)
        if future:
            future.set_result(time.monotonic())

    async def watch(self, listing: Callable[..., Awaitable[Any]], read: Callable[[Any], Observations]) -> None:
        """Record every event of a watch, without end. `listing`: a list call without preloaded content."""
        first = await listing()
        version = json.loads(await first.read())["metadata"]["resourceVersion"]
        response = await listing(watch=True, resource_version=version, _request_timeout=_WATCH_SECONDS)
        async for line in _lines(response):
            for state in read(json.loads(line)["object"]):
                self.record(*state)


def custom_objects(api: client.ApiClient, namespace: str, plural: str) -> Callable[..., Awaitable[Any]]:
    """Return the list call of one of hotpool's kinds."""
    objects = client.CustomObjectsApi(api)

    async def listing(**more: Any) -> Any:
        return await objects.list_namespaced_custom_object_without_preload_content(*GROUP, namespace, plural, **more)

    return listing


async def _lines(response: Any) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
