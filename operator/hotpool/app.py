"""Composition root of the operator: settings → clients → cache → manager → watches. No other module wires parts."""

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

import structlog

from hotpool.api.meta import ELECTION_LEASE, SCHEMA_REVISION
from hotpool.clock import Clock
from hotpool.common import early_signals, exit_codes, kubeconfig
from hotpool.common.health_server import ListenError, check_lines, serving
from hotpool.common.lossy_stream import drain_stderr
from hotpool.controllers.cluster_addresses import ClusterAddresses
from hotpool.controllers.context import ControllerContext
from hotpool.controllers.drain_reader import DrainReader
from hotpool.controllers.fleet_metrics import FleetMetrics
from hotpool.controllers.kubernetes_target import KubernetesTarget
from hotpool.controllers.manager import Manager, first_of
from hotpool.controllers.pod_reader import PodReader
from hotpool.controllers.redis_target import RedisTarget
from hotpool.controllers.result import Target
from hotpool.controllers.service import ServiceContext
from hotpool.controllers.service_target import ServiceTarget
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.model import CUSTOM_KINDS, Kind
from hotpool.errors import FencedError, NotLeaderError, RetryableError
from hotpool.events.aggregator import EventObject
from hotpool.events.recorder import EventRecorder
from hotpool.kube import custom_resource_watch
from hotpool.kube.client import ApiUnavailable, Connection, connect
from hotpool.kube.endpoint_facts import EndpointFacts
from hotpool.kube.event_writer import EventWriter
from hotpool.kube.leader_election import LeaderElector, leader_annotations
from hotpool.kube.lease_watch import LeaseWatch
from hotpool.kube.lease_watch_probe import LeaseWatchProbe
from hotpool.kube.node_watch import NodeWatch
from hotpool.kube.reader import Reader
from hotpool.kube.service_reader import ServiceReader
from hotpool.kube.service_writer import ServiceWriter
from hotpool.kube.writer import KubeWriter
from hotpool.observability.metrics import REGISTRY, WATCH_UP
from hotpool.projection.connection.async_connection import Client
from hotpool.projection.connection.async_connection import connect as connect_redis
from hotpool.projection.connection.credentials import Credentials
from hotpool.projection.writer import RedisWriter
from hotpool.settings import Settings

T = TypeVar("T")

log = structlog.get_logger(__name__)

APPLY_DEFINITIONS: Final = (
    "kubectl apply --server-side -f crds/ (with the chart, as docs/how-to/install.md says: "
    "helm show crds CHART | kubectl apply --server-side --field-manager=helm --force-conflicts -f -)"
)
_GRANT: Final = "give this account Role hotpool-operator and ClusterRole hotpool-NAMESPACE-operator of the chart"
_FORBIDDEN: Final = 403
_WAIT_SECONDS = 1.0
_END_SECONDS = 8.0
"""Time in which a part must end."""
_GRACE_SECONDS = 1.0
"""Time for the watch to end by itself; kopf would wait 5 s for requests without a response."""


class StartupError(Exception):
    """Error of the cluster or the settings that prevents the start. The text says what to do."""

    def __init__(self, text: str, exit_code: int = exit_codes.FAILED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


async def run(settings: Settings) -> int:
    """Run until SIGTERM (0), or until a part fails (1). Raises StartupError."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    target = kubeconfig.Target(settings.kubeconfig, settings.context)
    try:
        connection = await _unless_stopped(connect(target), stop)  # an exec plugin may take long
    except ApiUnavailable as error:
        raise StartupError(str(error), exit_codes.UNAVAILABLE) from None
    if connection is None:
        return 0
    try:
        return await Operator(settings, connection, stop).run()
    finally:
        await connection.api.close()


class Operator:
    """Parts of one operator, wired."""

    def __init__(self, settings: Settings, connection: Connection, stop: asyncio.Event) -> None:
        self._settings = settings
        self._connection, api = connection, connection.api
        self._stop, self._won, self._lost = stop, asyncio.Event(), asyncio.Event()
        self._listed, self._stop_watch = asyncio.Event(), asyncio.Event()
        notify = asyncio.get_running_loop().call_soon_threadsafe  # the elector is a thread
        self._elector = LeaderElector(
            settings.namespace,
            connection.login,
            won=partial(notify, self._won.set),
            lost=partial(notify, self._lost.set),
            annotations=leader_annotations(kube_nodes=settings.kube_nodes),
        )
        self._reader = Reader(api, settings.namespace)
        self._clock = clock = Clock()
        self._events = EventWriter(api, settings.namespace, self._elector, instance=self._elector.identity)
        facts = EndpointFacts(api, connection.login.current.server)
        self._addresses = ClusterAddresses(facts, _address_policy(settings))
        self._cache = ClusterCache(wall_offset=clock.offset)
        self._pod_reader = PodReader(facts, self._cache.endpoints.pods, settings.pod_namespaces)
        self._cluster = ""
        self._redis = _redis(settings)
        self._recorder = EventRecorder(self._cache, clock)
        kinds = (Kind.KUBE_NODE, *CUSTOM_KINDS) if settings.kube_nodes else CUSTOM_KINDS
        self._manager = Manager(
            self._cache, self._reader, clock, self._recorder, kinds, wake_pod_reader=self._pod_reader.wake
        )
        self._watched = ["leases", *(kind.value for kind in kinds)]
        for kind in self._watched:
            WATCH_UP.labels(kind).set_function(partial(self._watch_is_up, kind))
        self._node_watch = (
            NodeWatch(api, self._manager.on_object, clock, self._recorder.node_watch_health)
            if settings.kube_nodes
            else None
        )
        self._lease_watch = LeaseWatch(api, settings.namespace, self._manager, clock)
        on_sent = self._manager.ingest.on_probe_sent
        self._lease_watch_probe = LeaseWatchProbe(api, settings.namespace, on_sent, self._elector, clock)

    def _targets(self) -> list[Target]:
        """Return the targets of a new leadership (docs/how-to/add-a-target.md), in the order in which they plan.

        Redis first: it takes withdrawals within a millisecond.
        """
        kube = KubeWriter(self._connection.api, self._settings.namespace, self._elector)
        refusal = _service_refusal(self._settings)
        context = ControllerContext(
            cache=self._cache,
            kube=kube,
            resync=self._manager.resync,
            clock=self._clock,
            recorder=self._recorder,
            service_refusal=refusal,
        )
        targets: list[Target] = []
        redis: RedisTarget | None = None
        if self._redis:
            key_options = {"namespace": self._settings.namespace, "prefix": self._settings.redis_prefix}
            writer = RedisWriter(self._redis, self._elector, **key_options)
            redis = RedisTarget(
                writer, self._cache, self._clock, self._elector, self._cluster_id, recorder=self._recorder
            )
            targets.append(redis)
        drains, mark = context.drains, self._manager.mark
        self._drain_reader = DrainReader(redis, self._cache, self._clock, drains, mark, memory=self._elector)
        targets.append(KubernetesTarget(context, self._reader))
        return [*targets, self._service_target(refusal)] if self._settings.services else targets

    def _service_target(self, refusal: str) -> ServiceTarget:
        namespace, leadership = self._settings.namespace, self._elector
        kube = KubeWriter(self._connection.api, namespace, leadership, "services")
        return ServiceTarget(
            ServiceContext(
                cache=self._cache,
                writer=ServiceWriter(kube, namespace, leadership),
                reader=ServiceReader(self._reader, self._clock),
                resync=self._manager.resync,
                clock=self._clock,
                recorder=self._recorder,
                allows=lru_cache(maxsize=65536)(_address_policy(self._settings).vouches_for),
                refusal=refusal,
            )
        )

    async def _cluster_id(self) -> str:
        """Return the id that distinguishes clusters that share a Redis. Read it once. Raises RetryableError."""
        if not self._cluster:
            try:
                self._cluster = await self._reader.cluster_id()
            except ApiUnavailable as error:
                raise RetryableError(f"no write to Redis before the cluster's id is known: {error}") from None
        return self._cluster

    async def run(self) -> int:
        """Run all parts until the first one ends. Return the exit code."""
        try:
            async with serving(
                self._settings.listen,
                REGISTRY,
                healthz=lambda: (True, "ok\n"),
                readyz=lambda: check_lines(self._checks()),
            ):
                return await self._run_parts()
        except ListenError as error:
            raise StartupError(f"{error} or HOTPOOL_LISTEN") from None

    async def _run_parts(self) -> int:
        log.info("starting", namespace=self._settings.namespace, server=self._connection.login.current.server)
        if self._settings.allow_loopback_endpoints:
            log.warning("loopback addresses are endpoints (--allow-loopback-endpoints): for trials on one machine only")
        if not await _unless_stopped(self._check_cluster(), self._stop):
            return 0
        parts = {
            "signal": self._stop.wait(),
            "leases": self._lease_watch.run(),
            "watches": self._connection.watches.run(self._watched),
            "pods": self._pod_reader.run(self._manager.on_pod),
            "lines": self._recorder.membership_log.run(),
            "addresses": self._addresses.follow(self._manager.apply_policy),
            "work": self._work(),
        } | ({"nodes": self._node_watch.run()} if self._node_watch else {})
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        handlers = custom_resource_watch.registry(self._manager.on_object, self._connection)
        watching = custom_resource_watch.watch(
            handlers,
            self._settings.namespace,
            handle_signals=partial(_stop_on_signals, self._stop),
            ready=self._listed,
            stop=self._stop_watch,
        )
        watcher = asyncio.create_task(watching, name="watch")  # last: kopf cancels tasks created after its start
        done, _ = await asyncio.wait([*tasks, watcher], return_when=asyncio.FIRST_COMPLETED)
        unfinished = await self._end(tasks, watcher)
        code = _outcome(done)
        if unfinished:
            log.error("parts did not end in time", parts=unfinished)
        if unfinished or not watcher.done():
            # Leadership is released, so waiting only delays the restart. Cancelled tasks of kopf never end.
            drain_stderr()
            os._exit(1 if unfinished else code)
        return code

    async def _check_cluster(self) -> bool:
        """Wait for the API server. Return True, or raise StartupError without the namespace or a CRD of today."""
        for kind in CUSTOM_KINDS:
            found = await _when_available(partial(self._reader.schema_revision, kind))
            if found is None or found < SCHEMA_REVISION:
                problem = "is not installed" if found is None else f"has revision {found}, {SCHEMA_REVISION} is needed"
                raise StartupError(f"the CustomResourceDefinition of {kind.value} {problem}: {APPLY_DEFINITIONS}")
        if not await _when_available(self._reader.namespace_exists):
            name = self._settings.namespace
            create = f"create it (kubectl create namespace {name})"
            raise StartupError(f"there is no namespace {name}: {create}, or give another one with -n")
        self._cache.endpoints.policy = await self._addresses.read()
        return True

    async def _work(self) -> None:
        """List, then lead whenever this process holds the Lease, and keep the cache current in between."""
        listed = (self._listed, self._lease_watch.listed, *([self._node_watch.listed] if self._node_watch else []))
        await asyncio.gather(*(event.wait() for event in listed))
        gc.freeze()  # listed objects stay: exclude them from garbage collections
        await self._manager.open_gate()
        self._elector.start_campaign(lambda: self._cache.slices.largest_term)
        while True:
            await first_of(self._manager.stand_by(), self._won.wait())
            self._won.clear()
            self._lost.clear()
            await self._lead()

    async def _lead(self) -> None:
        """Write to the targets until leadership ends."""
        log.info("leading", term=self._elector.term, identity=self._elector.identity)
        lease = EventObject("Lease", ELECTION_LEASE, self._elector.lease_uid, "coordination.k8s.io/v1")
        self._recorder.leader_elected(self._elector.term, lease)
        try:
            await first_of(
                self._manager.lead(self._targets()),
                self._recorder.run(self._events.post),
                self._lease_watch_probe.run(),
                self._drain_reader.run(),
                FleetMetrics(self._cache, self._clock, by_name=self._settings.pool_metrics).run(),
                self._lost.wait(),
            )
        except (NotLeaderError, FencedError) as error:
            log.warning("no longer leading", reason=str(error))
            self._elector.step_down()
        self._recorder.leader_lost()
        log.info("standing by", identity=self._elector.identity)

    async def _end(self, tasks: Sequence[asyncio.Task[Any]], watcher: asyncio.Task[None]) -> list[str]:
        """End all parts, release leadership, stop the watch. Return the names of parts that did not end in time."""
        for task in tasks:
            task.cancel()
        _, unfinished = await asyncio.wait(tasks, timeout=_END_SECONDS)
        await asyncio.to_thread(self._elector.stop)
        self._stop_watch.set()
        await asyncio.wait([watcher], timeout=_GRACE_SECONDS)
        if self._redis:
            await self._redis.aclose()
        return sorted(task.get_name() for task in unfinished)

    def _watch_is_up(self, kind: str) -> bool:
        """Return True while a watch has a proof of life; of Leases, which have a probe, the probe must return, too."""
        return self._connection.watches.is_up(kind) and not (kind == "leases" and self._manager.ingest.watch_is_stale)

    def _checks(self) -> Mapping[str, str]:
        """Return the checks of /readyz: name → problem, empty if it passes. Only the leader has checks of targets."""
        checks = {
            "listed": "" if self._cache.gate_open else "first listing not complete",
            "watches": self._connection.watches.problem(),
            "leases": "no heartbeats can be received" if self._manager.ingest.watch_is_stale else "",
        }
        if self._node_watch:
            checks["nodes"] = self._node_watch.error
        if self._elector.sees_leader():
            return checks | {"following": ""}
        checks["leading"] = "" if self._elector.may_write() else "no leader known"
        return checks | self._manager.target_errors()


def _service_refusal(settings: Settings) -> str:
    """Return why no pool may have a Service; empty: pools may."""
    if not settings.services:
        return "the operator publishes no Services: set services.enabled=true of the chart, or --services"
    if not settings.endpoints_allowed_cidrs:
        return "endpoints.allowedCIDRs of the chart is empty: list the ranges that Services may publish"
    return ""


def _address_policy(settings: Settings) -> AddressPolicy:
    return AddressPolicy(
        allowed_cidrs=settings.endpoints_allowed_cidrs,
        denied_cidrs=settings.endpoints_denied_cidrs,
        service_cidrs=settings.endpoints_service_cidrs,
        trust_agents=settings.endpoints_trust_agents,
        allow_loopback=settings.allow_loopback_endpoints,
    )


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


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if number in early_signals.received:
            stop.set()


async def _unless_stopped(step: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Return the result of a step of the start, or None if a signal ends it."""
    tasks = asyncio.create_task(step), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return None if stop.is_set() else await tasks[0]
    finally:
        for task in tasks:
            task.cancel()


async def _when_available(read: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a read, which is repeated without limit while the API server is unavailable."""
    problem = ""
    while True:
        try:
            return await read()
        except ApiUnavailable as error:
            if problem != str(error):
                problem = str(error)
                advice = {"advice": _GRANT} if error.status == _FORBIDDEN else {}
                log.warning("waiting for the API server", error=problem, **advice)
            await asyncio.sleep(_WAIT_SECONDS)


def _outcome(done: set[asyncio.Task[Any]]) -> int:
    for task in done:
        if error := task.exception():
            log.error("a component failed; exiting for a restart", component=task.get_name(), exc_info=error)
            return 1
    ended = sorted(task.get_name() for task in done)
    if "signal" in ended:
        log.info("stopped")
        return 0
    log.error("a component ended unexpectedly; exiting for a restart", components=ended)
    return 1
