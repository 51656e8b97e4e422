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
from hotpool_agent.kube.http_client import WATCH_SECONDS, part
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.watch_loop import WatchLoop
from hotpool_agent.notifier import Notifier
from hotpool_agent.pods.pod_registry import PodRegistry
from hotpool_agent.pods.pod_service import TYPE_LABEL
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.settings import Settings

_MAX_NAMED: Final = 3
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
        self.synced_at: str | None = None
        """When it was certain last that everything was heard; None: the pods were never listed."""
        self._cluster = cluster
        self._registry = roster
        self._on_update = heard
        self._version: str | None = None
        """To watch from."""
        self._list_again_at = 0.0

    async def follow(self) -> None:
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
    def problem_text(self) -> str | None:
        """What is wrong, and what that means, for people."""
        if self.synced_at is None:
            why = self.problem or "not listed yet"
            return f"namespace {self.namespace}: {why}; nothing is reported before its pods were listed"
        if self.problem is None:
            return None
        return f"namespace {self.namespace}: {self.problem}; its services stay as they were at {self.synced_at}"

    async def _list(self) -> None:
        found = await self._cluster.list_pods(self.namespace, TYPE_LABEL)
        self._version = found.version
        # Agents that began together must not list together for ever.
        self._list_again_at = self.clock() + random.uniform(0.8, 1.0) * WATCH_SECONDS  # noqa: S311 - guards no secret
        self._registry.replace(self.namespace, found.items)
        self._mark_synced()

    async def _watch(self, version: str) -> None:
        seconds = math.ceil(self._list_again_at - self.clock())
        async with self._cluster.watching_pods(self.namespace, TYPE_LABEL, version, seconds) as events:
            self._mark_synced()
            async for kind, pod in events:
                self._version = str(part(pod, "metadata").get("resourceVersion") or "") or None
                self._registry.apply_event(self.namespace, kind, pod)
                self._mark_synced()

    def _mark_synced(self) -> None:
        self.problem = None
        self.synced_at = timestamp()
        self._on_update()


class PodServices:
    """All pods of the node that are services. `changed` is called when they may have changed."""

    def __init__(self, cluster: NodeResources, settings: Settings, changed: Callable[[], None]) -> None:
        self._registry = PodRegistry()
        self._notifier = Notifier()
        self._changed = changed
        self.watches = [
            PodWatch(namespace, cluster, settings, roster=self._registry, heard=self._update)
            for namespace in settings.pod_namespaces
        ]

    async def wait_listed(self) -> None:
        """Return when the pods of every namespace were listed once: before, nobody knows which services there are."""
        await self._notifier.wait_for(lambda: all(watch.synced_at for watch in self.watches))

    def services(self, taken: Collection[str]) -> tuple[list[ServiceStatus], list[str]]:
        """The services, with ids that are none of those `taken`; and which pods are none, and why."""
        return self._registry.services(taken)

    def problem(self, refused: Sequence[str]) -> str | None:
        """What is not heard, and which pods are no services, for people."""
        more = [f"and {len(refused) - _MAX_NAMED} pods more"] if len(refused) > _MAX_NAMED else []
        deaf = [words for watch in self.watches if (words := watch.problem_text)]
        return "; ".join((*deaf, *refused[:_MAX_NAMED], *more)) or None

    def _update(self) -> None:
        self._notifier.notify()
        self._changed()
