"""The composition root: settings → clients → state → reconciler → watch; the only wiring.

`hotpool operator` runs it (`hotpool.cli.run`).
"""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from kubernetes.aio import client

from hotpool.api.meta import ELECTION_LEASE, KUBE_NODES_ANNOTATION, SCHEMA_REVISION
from hotpool.clock import Clock
from hotpool.common.health_server import serve
from hotpool.controllers.manager import Manager
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import CUSTOM_KINDS, Kind
from hotpool.errors import RetryableError
from hotpool.events.aggregator import EventObject
from hotpool.events.recorder import EventRecorder
from hotpool.kube import custom_resource_watch
from hotpool.kube.client import KUBECONFIG_ERRORS, ApiUnavailable, ClusterTarget, Reader, connect, kubeconfig_error
from hotpool.kube.event_writer import EventWriter
from hotpool.kube.leader_election import LeaderElector
from hotpool.kube.lease_watch import LeaseWatch
from hotpool.kube.lease_watch_probe import LeaseWatchProbe
from hotpool.kube.node_watch import NodeWatch
from hotpool.kube.writer import KubeWriter
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.connection.async_connection import Client
from hotpool.projection.connection.async_connection import connect as connect_redis
from hotpool.projection.connection.credentials import Credentials
from hotpool.projection.publisher import Publisher
from hotpool.projection.writer import RedisWriter
from hotpool.settings import Settings

log = structlog.get_logger(__name__)

APPLY_DEFINITIONS: Final = (
    "kubectl apply --server-side -f crds/ (with the chart, as docs/install.md says: "
    "helm show crds CHART | kubectl apply --server-side --field-manager=helm --force-conflicts -f -)"
)
_WAIT_SECONDS = 1.0
_END_SECONDS = 8.0
"""What a part has to end; kopf waits 5 s for its own."""
_GC_THRESHOLD = 50_000
"""New objects until the collector looks: a fleet is millions of objects that no cycle holds."""


class StartupError(Exception):
    """The cluster, or how it was named, is not as the operator needs it; the text says what to do."""


async def run(settings: Settings) -> int:
    """Run until SIGTERM (0), or until leadership or a part is lost (1). Raises Unusable."""
    gc.set_threshold(_GC_THRESHOLD)
    access = ClusterTarget(settings.namespace, settings.kubeconfig, settings.context)
    try:
        api = await connect(access)
    except KUBECONFIG_ERRORS as error:
        raise StartupError(str(kubeconfig_error(access, error))) from None
    try:
        return await Operator(settings, access, api).run()
    finally:
        await api.close()


class Operator:
    """All parts of one operator, wired."""

    def __init__(self, settings: Settings, access: ClusterTarget, api: client.ApiClient) -> None:
        self._settings = settings
        self._api = api
        self._stop, self._won, self._lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._listed, self._stop_watch = asyncio.Event(), asyncio.Event()
        self._elector = LeaderElector(
            access,
            won=_from_thread(self._won),
            lost=_from_thread(self._lost),
            says={KUBE_NODES_ANNOTATION: str(settings.kube_nodes).lower()},
        )
        self._reader = Reader(api, settings.namespace)
        kube = KubeWriter(api, settings.namespace, leader=self._elector.leading, term=lambda: self._elector.term)
        clock = Clock()
        leading, identity = self._elector.leading, self._elector.identity
        self._events = EventWriter(api, settings.namespace, leader=leading, instance=identity)
        self._state = ClusterCache(wall_offset=clock.offset)
        self._cluster = ""
        self._redis = _redis(settings)
        self._recorder = EventRecorder(self._state, clock)
        self._publisher = self._make_publisher()
        kinds = (Kind.KUBE_NODE, *CUSTOM_KINDS) if settings.kube_nodes else CUSTOM_KINDS
        self._manager = Manager(
            self._state, self._reader, kube, self._publisher, clock, narrator=self._recorder, kinds=kinds
        )
        self._node_watch = (
            NodeWatch(api, self._manager.on_object, self._recorder.node_watch_health) if settings.kube_nodes else None
        )
        self._lease_watch = LeaseWatch(api, settings.namespace, self._manager)
        self._lease_watch_probe = LeaseWatchProbe(
            api, settings.namespace, self._manager, leader=self._elector.leading, clock=clock
        )

    def _make_publisher(self) -> Publisher | None:
        if self._redis is None:
            return None
        where = {"namespace": self._settings.namespace, "prefix": self._settings.redis_prefix}
        writer = RedisWriter(self._redis, leader=self._elector.leading, **where)

        async def raise_term(term: int) -> None:
            await asyncio.to_thread(self._elector.raise_term, term)

        return Publisher(
            writer,
            term=lambda: self._elector.term,
            raise_term=raise_term,
            cluster=self._cluster_id,
            tell=self._recorder.redis_health,
        )

    async def _cluster_id(self) -> str:
        """What tells this cluster from others that may share the Redis; read once. Raises Retryable."""
        if not self._cluster:
            try:
                self._cluster = await self._reader.cluster_id()
            except ApiUnavailable as error:
                raise RetryableError(
                    f"nothing is written to Redis before this cluster's id is known: {error}"
                ) from None
        return self._cluster

    async def run(self) -> int:
        """Run all parts until the first of them ends."""
        self._handle_signals()
        try:
            probes = await serve(self._settings.listen, REGISTRY, self._checks)
        except OSError as error:
            raise StartupError(f"cannot listen on {self._settings.listen}: {error.strerror}; see --listen") from None
        await self._usable()
        parts = {
            "signal": self._stop.wait(),
            "leadership": self._lost.wait(),
            "leases": self._lease_watch.run(),
            "work": self._work(),
        } | ({"nodes": self._node_watch.run()} if self._node_watch else {})
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        handlers = custom_resource_watch.registry(self._manager.on_object, self._api.configuration)
        watching = custom_resource_watch.watch(
            handlers, self._settings.namespace, ready=self._listed, stop=self._stop_watch
        )
        watcher = asyncio.create_task(watching, name="watch")  # last: kopf ends what was made after it
        done, _ = await asyncio.wait([*tasks, watcher], return_when=asyncio.FIRST_COMPLETED)
        hung = await self._end(tasks, watcher)
        await probes.cleanup()
        if hung:
            log.error("parts did not end in time", parts=hung)
            os._exit(1)  # leadership is released; waiting for what does not end would only keep the next one waiting
        return _outcome(done)

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _usable(self) -> None:
        """Wait for the API server, then refuse to work on definitions older than ours."""
        for kind in CUSTOM_KINDS:
            while True:
                try:
                    revision = await self._reader.schema_revision(kind)
                    break
                except ApiUnavailable as error:
                    log.warning("waiting for the API server", error=str(error))
                    await asyncio.sleep(_WAIT_SECONDS)
            if revision is None or revision < SCHEMA_REVISION:
                found = (
                    "is not installed" if revision is None else f"has revision {revision}, {SCHEMA_REVISION} is needed"
                )
                raise StartupError(f"the definition of {kind.value} {found}: {APPLY_DEFINITIONS}")

    async def _work(self) -> None:
        """The straight path: list, lead, reconcile; compare Redis once every key was worked on."""
        listed = (self._listed, self._lease_watch.listed, *([self._node_watch.listed] if self._node_watch else []))
        await asyncio.gather(*(event.wait() for event in listed))
        self._handle_signals()  # kopf has put its own handlers in their place
        await self._manager.open_gate()
        gc.freeze()  # what was listed stays: the collector need not look at it again and again
        self._elector.start_campaign(lambda: self._state.largest_term)
        await self._stand_by()
        log.info("leading", term=self._elector.term, identity=self._elector.identity)
        lease = EventObject("Lease", ELECTION_LEASE, self._elector.lease_uid, "coordination.k8s.io/v1")
        self._recorder.leader_elected(self._elector.term, lease)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(self._events.post))
            group.create_task(self._lease_watch_probe.run())
            group.create_task(self._manager.run())
            if self._publisher:
                await self._manager.all_reconciled.wait()
                group.create_task(self._publisher.run())

    async def _stand_by(self) -> None:
        """Until we lead: keep warm."""
        warm = asyncio.create_task(self._manager.stand_by())
        won = asyncio.create_task(self._won.wait())
        try:
            done, _ = await asyncio.wait([warm, won], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (warm, won):
                task.cancel()
        await asyncio.gather(*(task for task in done if task is warm))

    async def _end(self, tasks: Sequence[asyncio.Task[Any]], watcher: asyncio.Task[None]) -> list[str]:
        """End all parts and release leadership; the names of those that did not end in time."""
        for task in tasks:
            task.cancel()
        _, hung = await asyncio.wait(tasks, timeout=_END_SECONDS)
        await self._manager.finish()
        await asyncio.to_thread(self._elector.stop)
        self._stop_watch.set()
        _, watching = await asyncio.wait([watcher], timeout=_END_SECONDS)
        if self._redis:
            await self._redis.aclose()
        return sorted(task.get_name() for task in {*hung, *watching})

    def _checks(self) -> Mapping[str, str]:
        """What /readyz asks: why a part is not well, empty where it is. Redis is the leader's to write."""
        checks = {
            "listed": "" if self._state.gate_open else "not everything was listed yet",
            "leases": "heartbeats cannot be heard" if self._manager.watch_is_stale else "",
        }
        if self._node_watch:
            checks["nodes"] = self._node_watch.error
        if self._elector.sees_leader():
            return checks | {"following": ""}
        checks["leading"] = "" if self._elector.leading() else "nobody leads, as far as is known here"
        return checks | ({"redis": self._publisher.last_error} if self._publisher else {})


def _redis(settings: Settings) -> Client | None:
    if settings.redis_url is None:
        return None
    credentials = Credentials(
        settings.redis_username,
        settings.redis_password_file,
        settings.redis_ca_file,
        settings.redis_sentinel_password_file,
    )
    try:
        return connect_redis(
            settings.redis_url.get_secret_value(),
            cluster=settings.redis_cluster,
            sentinels=settings.redis_sentinels.split(",") if settings.redis_sentinels else (),
            credentials=credentials,
        )
    except ValueError as error:
        raise StartupError(str(error)) from None


def _from_thread(event: asyncio.Event) -> Callable[[], None]:
    loop = asyncio.get_running_loop()

    def tell() -> None:
        loop.call_soon_threadsafe(event.set)

    return tell


def _outcome(done: set[asyncio.Task[Any]]) -> int:
    for task in done:
        if error := task.exception():
            raise error
    ended = sorted(task.get_name() for task in done)
    if "signal" in ended:
        log.info("stopped")
        return 0
    log.error("a part ended; a restart puts it right", parts=ended)
    return 1
