"""Watch of the node's pods in the configured namespaces (with the care of requirement C7): I/O.

A failed list or a broken watch is no evidence: the services keep their last known state, and the problem is reported.
"""

import math
import random
from collections.abc import Collection, Sequence
from typing import Final

from hotpool.api.meta import timestamp
from hotpool_agent.json_access import mapping
from hotpool_agent.kube.errors import BusyError, ExpiredError, KubeError, UnavailableError
from hotpool_agent.kube.http_client import WATCH_SECONDS
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.retry_loop import RetryLoop
from hotpool_agent.notifier import Notifier
from hotpool_agent.pods.pod_registry import PodRegistry
from hotpool_agent.pods.pod_service import TYPE_LABEL
from hotpool_agent.reporting_port import Reporting
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.settings import Settings

_MAX_NAMED: Final = 3
"""Number of rejected pods that a problem names."""


class PodWatch(RetryLoop):
    """Watch of the pods of one namespace.

    A broken watch resumes from its last resourceVersion. After 5 min, and when the API server refuses that version, the
    pods are listed again, which finds changes that the watch missed, also after a restore of etcd.
    """

    def __init__(
        self,
        namespace: str,
        cluster: NodeResources,
        settings: Settings,
        *,
        registry: PodRegistry,
        reporting: Reporting,
    ) -> None:
        super().__init__(settings)
        self.subject = f"pods of {namespace}"
        self.namespace = namespace
        self.synced_at: str | None = None
        """Last time at which the registry was up to date; None: the pods were never listed."""
        self._cluster = cluster
        self._registry = registry
        self._reporting = reporting
        self._notifier = Notifier()
        self._version: str | None = None
        """resourceVersion from which to watch; None: list first."""
        self._list_again_at = 0.0

    async def attempt(self) -> None:
        """List if necessary, then apply each event of the watch."""
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

    async def wait_listed(self) -> None:
        """Return when the pods were listed once."""
        await self._notifier.wait_for(lambda: self.synced_at is not None)

    def is_synced(self) -> bool:
        """Return True while the registry is up to date."""
        return self.problem_text is None

    @property
    def problem_text(self) -> str | None:
        """Problem of the watch and its consequence, as text; None without one."""
        if self.synced_at is None:
            reason = self.problem or "not listed yet"
            return f"namespace {self.namespace}: {reason}; nothing is reported before its pods were listed"
        if self.problem is None:
            return None
        return f"namespace {self.namespace}: {self.problem}; its services stay as they were at {self.synced_at}"

    async def _list(self) -> None:
        listed = await self._cluster.list_pods(self.namespace, TYPE_LABEL)
        self._version = listed.version
        # A random period, so that agents that started together do not keep listing together.
        self._list_again_at = self.clock() + random.uniform(0.8, 1.0) * WATCH_SECONDS  # noqa: S311 - guards no secret
        self._registry.replace(self.namespace, listed.items)
        self._mark_synced()

    async def _watch(self, version: str) -> None:
        seconds = math.ceil(self._list_again_at - self.clock())
        async with self._cluster.watch_pods(self.namespace, TYPE_LABEL, version, seconds) as events:
            self._mark_synced()
            async for kind, pod in events:
                self._version = str(mapping(pod.get("metadata")).get("resourceVersion") or "") or None
                self._registry.apply_event(self.namespace, kind, pod)
                self._mark_synced()

    def _mark_synced(self) -> None:
        self.problem = None
        self.synced_at = timestamp()
        self._notifier.notify()
        self._reporting.changed()


class PodServices:
    """All pods of the node that are services."""

    def __init__(self, cluster: NodeResources, settings: Settings, reporting: Reporting) -> None:
        self._registry = PodRegistry()
        self.watches = [
            PodWatch(namespace, cluster, settings, registry=self._registry, reporting=reporting)
            for namespace in settings.pod_namespaces
        ]

    async def wait_listed(self) -> None:
        """Return when the pods of every namespace were listed once; until then the services are unknown."""
        for watch in self.watches:
            await watch.wait_listed()

    def services(self, taken: Collection[str]) -> tuple[list[ServiceStatus], list[str]]:
        """Return the services, with ids that are not `taken`, and the reasons of rejected pods."""
        return self._registry.services(taken)

    def problem(self, rejected: Sequence[str]) -> str | None:
        """Return the problems of all watches and the first rejected pods as text; None without any."""
        more = [f"and {len(rejected) - _MAX_NAMED} more pods"] if len(rejected) > _MAX_NAMED else []
        broken = [text for watch in self.watches if (text := watch.problem_text)]
        return "; ".join((*broken, *rejected[:_MAX_NAMED], *more)) or None
