"""Hears of the node's pods in the namespaces that are set (requirement C7's care, in the agent): I/O through `publish`.

`node` takes the services from here. A list that fails and a watch that breaks are no evidence: the services stay as
they were heard of last, and it is said.
"""

import math
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final

from hotpool.api.meta import timestamp
from hotpool_agent.kube.errors import BusyError, ExpiredError, KubeError, UnavailableError
from hotpool_agent.kube.http_client import WATCH_SECONDS, object_at
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.watch_loop import WatchLoop
from hotpool_agent.notifier import Notifier
from hotpool_agent.pods.pod_registry import PodRegistry
from hotpool_agent.pods.pod_service import TYPE_LABEL
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.settings import Settings

_TOLD: Final = 3
"""So many pods are named, of those that are no services."""


class PodWatch(WatchLoop):
    """The pods of one namespace.

    A watch that breaks goes on where it was; after 5 min, and when the API server says that this cannot be, the pods
    are listed again: that finds what a watch missed, also after etcd went back to an older state.
    """

    def __init__(
        self,
        namespace: str,
        cluster: NodeResources,
        settings: Settings,
        *,
        roster: PodRegistry,
        heard: Callable[[], None],
    ) -> None:
        super().__init__(f"pods of {namespace}", settings)
        self.namespace = namespace
        self.listed_at: str | None = None
        """When it was certain last that everything was heard; None: the pods were never listed."""
        self._cluster = cluster
        self._roster = roster
        self._on_pods = heard
        self._version: str | None = None
        """To watch from."""
        self._list_again_at = 0.0

    async def watch_once(self) -> None:
        """List where need be, then hear each change."""
        try:
            if self._version is None or self.clock() >= self._list_again_at:
                await self._list()
            await self._watch(self._version or "")
        except ExpiredError:
            self._version = None
        except (BusyError, UnavailableError):
            raise
        except KubeError:
            self._version = None
            raise

    @property
    def words(self) -> str | None:
        """What is wrong, and what that means, for people."""
        if self.listed_at is None:
            why = self.problem or "not listed yet"
            return f"namespace {self.namespace}: {why}; nothing is reported before its pods were listed"
        if self.problem is None:
            return None
        return f"namespace {self.namespace}: {self.problem}; its services stay as they were at {self.listed_at}"

    async def _list(self) -> None:
        found = await self._cluster.list_pods(self.namespace, TYPE_LABEL)
        self._version = found.version
        # Agents that began together must not list together for ever.
        self._list_again_at = self.clock() + random.uniform(0.8, 1.0) * WATCH_SECONDS  # noqa: S311 - guards no secret
        self._roster.listed(self.namespace, found.items)
        self._is_well()

    async def _watch(self, version: str) -> None:
        seconds = math.ceil(self._list_again_at - self.clock())
        async with self._cluster.watch_pods(self.namespace, TYPE_LABEL, version, seconds) as events:
            self._is_well()
            async for kind, pod in events:
                self._version = str(object_at(pod, "metadata").get("resourceVersion") or "") or None
                self._roster.update(self.namespace, kind, pod)
                self._is_well()

    def _is_well(self) -> None:
        self.problem = None
        self.listed_at = timestamp()
        self._on_pods()


class PodServices:
    """All pods of the node that are services. `changed` is called when they may have changed."""

    def __init__(self, cluster: NodeResources, settings: Settings, changed: Callable[[], None]) -> None:
        self._roster = PodRegistry()
        self._pulse = Notifier()
        self._changed = changed
        self.watches = [
            PodWatch(namespace, cluster, settings, roster=self._roster, heard=self._update)
            for namespace in settings.pod_namespaces
        ]

    async def listed(self) -> None:
        """Return when the pods of every namespace were listed once: before, nobody knows which services there are."""
        await self._pulse.wait_for(lambda: all(watch.listed_at for watch in self.watches))

    def services(self, taken: Collection[str]) -> tuple[list[ServiceStatus], list[str]]:
        """The services, with ids that are none of those `taken`; and which pods are none, and why."""
        return self._roster.services(taken)

    def problem(self, refused: Sequence[str]) -> str | None:
        """What is not heard, and which pods are no services, for people."""
        more = [f"and {len(refused) - _TOLD} pods more"] if len(refused) > _TOLD else []
        deaf = [words for watch in self.watches if (words := watch.words)]
        return "; ".join((*deaf, *refused[:_TOLD], *more)) or None

    def _update(self) -> None:
        self._pulse.notify()
        self._changed()
