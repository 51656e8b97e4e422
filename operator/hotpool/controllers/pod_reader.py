"""Reads of the pods that agents name as services: once when they are named, and again after a failed read (B13).

The result is an observation for the cache, like those of the watches. Nothing waits for it but the gate, for a moment.
"""

import asyncio
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

import structlog

from hotpool.api.names import SUBDOMAIN_PATTERN
from hotpool.common.backoff import Backoff
from hotpool.core.endpoints.pod_observations import NO_POD, PodAddresses, PodObservations
from hotpool.core.model import PodReference
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.endpoint_facts import EndpointFacts

log = structlog.get_logger(__name__)

CONCURRENT_READS: Final = 8
_NAME: Final = re.compile(SUBDOMAIN_PATTERN)
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0

OnPod = Callable[[PodReference, PodAddresses | None], None]
"""Function of a pod and what was read of it; None: the read failed."""


class PodReader:
    """Reader of claimed pods in `namespaces`; those of other namespaces count as not there."""

    def __init__(self, facts: EndpointFacts, pods: PodObservations, namespaces: Collection[str]) -> None:
        self._facts = facts
        self._pods = pods
        self._namespaces = namespaces
        self._wake = asyncio.Event()
        self._reads = asyncio.Semaphore(CONCURRENT_READS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[PodReference, asyncio.Event] = {}
        """Pod that is being read → set when it must be read once more."""
        self._error = ""

    def wake(self) -> None:
        """Read the pods that the cache asks for."""
        if self._pods.unread:
            self._wake.set()

    async def run(self, on_pod: OnPod) -> None:
        """Read until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for pod in self._pods.take_unread():
                    self._start(pod, on_pod)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, pod: PodReference, on_pod: OnPod) -> None:
        if pod.namespace not in self._namespaces or not _NAME.fullmatch(pod.name):
            on_pod(pod, NO_POD)
            return
        if asked := self._asked.get(pod):
            asked.set()
            return
        self._asked[pod] = asyncio.Event()
        task = asyncio.create_task(self._read(pod, on_pod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, pod: PodReference, on_pod: OnPod) -> None:
        """Read one pod until a read succeeds that began after the last claim, or no node claims the pod.

        A new claim ends a pause, but no read: else claims that change all the time would keep the pod unread.
        """
        backoff, asked = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), self._asked[pod]
        try:
            while True:
                async with self._reads:
                    if not self._pods.is_claimed(
                        pod
                    ):  # else an agent with a new pod in each report keeps others waiting
                        return
                    asked.clear()
                    found = await self._attempt(pod)
                on_pod(pod, found)
                if found is None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(backoff.pause()):
                            await asked.wait()
                elif not asked.is_set():
                    return
        finally:
            del self._asked[pod]

    async def _attempt(self, pod: PodReference) -> PodAddresses | None:
        try:
            found = await self._facts.pod(pod)
        except ApiUnavailable as error:
            self._note(str(error).replace(pod.name, "NAME"))
            return None
        self._note("")
        return found

    def _note(self, error: str) -> None:
        """Log what keeps pods from being read, once."""
        if error and error != self._error:
            log.warning("pods are not read; the addresses of these services count as their agents' word", error=error)
        self._error = error
