"""The composition root: settings → clients → state → reconciler → watch; the only wiring.

`hotpool operator` runs it; the other commands are in `hotpool.cli`.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import structlog
import typer
from kubernetes.aio import client
from kubernetes.aio.config import ConfigException

from hotpool import logs
from hotpool.api.meta import SCHEMA_REVISION
from hotpool.cli import diff, enroll, pick, top, why
from hotpool.clients import Access, Reader, Unavailable, connect
from hotpool.clock import Clock
from hotpool.core.model import Kind
from hotpool.core.state import State
from hotpool.core.story.events import About
from hotpool.election import LEASE_NAME, Elector
from hotpool.narrator import Narrator
from hotpool.probes import serve
from hotpool.projection.client import Client
from hotpool.projection.client import connect as connect_redis
from hotpool.projection.credentials import Credentials
from hotpool.projection.mirror import Mirror
from hotpool.projection.writer import Writer
from hotpool.reconciler import Reconciler
from hotpool.settings import Settings
from hotpool.sinks.errors import Retryable
from hotpool.sinks.events import EventSink
from hotpool.sinks.kube import KubeSink
from hotpool.sources import watch
from hotpool.sources.canary import Canary
from hotpool.sources.leases import LeaseStream

log = structlog.get_logger(__name__)

_WAIT_SECONDS = 1.0
_END_SECONDS = 8.0
"""What a part has to end; kopf waits 5 s for its own."""
_GC_THRESHOLD = 50_000
"""New objects until the collector looks: a fleet is millions of objects that no cycle holds."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="hotpool keeps every node in exactly the pools it qualifies for right now.",
)
for command in (why, top, diff, pick, enroll):
    command.register(app)


class Unusable(Exception):  # noqa: N818 - what people must put right, told in one line.
    """The cluster is not as the operator needs it; the text says what to do."""


@app.command()
def operator(
    *,
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="The fleet.")] = None,
    kubeconfig: Annotated[str | None, typer.Option(help="Path of a kubeconfig.")] = None,
    context: Annotated[str | None, typer.Option(help="Context within it.")] = None,
    redis: Annotated[str | None, typer.Option(help="redis://, rediss:// or unix://; without it no projection.")] = None,
    redis_prefix: Annotated[str | None, typer.Option(help="First part of the names of all keys.")] = None,
    redis_cluster: Annotated[bool | None, typer.Option("--redis-cluster", help="It is a Redis Cluster.")] = None,
    redis_sentinels: Annotated[
        str | None,
        typer.Option(help="host:port,host:port of sentinels; the URL's host is then the name of their service."),
    ] = None,
    redis_username: Annotated[str | None, typer.Option(help="ACL user.")] = None,
    redis_password_file: Annotated[str | None, typer.Option(help="File with the password.")] = None,
    redis_sentinel_password_file: Annotated[str | None, typer.Option(help="File with the sentinels' password.")] = None,
    redis_ca_file: Annotated[str | None, typer.Option(help="File with the certificates to trust (PEM).")] = None,
    listen: Annotated[str | None, typer.Option(help="Address of /healthz, /readyz and /metrics.")] = None,
) -> None:
    """Run the operator of one namespace until SIGTERM.

    Every option can also be said in the environment: HOTPOOL_NAMESPACE, HOTPOOL_REDIS_URL, HOTPOOL_LISTEN, …

    Example: hotpool operator -n speech --redis redis://127.0.0.1:6379
    """
    said: dict[str, Any] = {
        "namespace": namespace,
        "kubeconfig": kubeconfig,
        "context": context,
        "redis_url": redis,
        "redis_prefix": redis_prefix,
        "redis_cluster": redis_cluster,
        "redis_sentinels": redis_sentinels,
        "redis_username": redis_username,
        "redis_password_file": redis_password_file,
        "redis_sentinel_password_file": redis_sentinel_password_file,
        "redis_ca_file": redis_ca_file,
        "listen": listen,
    }
    settings = Settings(**{name: value for name, value in said.items() if value is not None})
    logs.configure(settings.log_level)
    try:
        raise typer.Exit(asyncio.run(run(settings)))
    except (Unusable, ConfigException) as error:
        typer.echo(f"hotpool operator: {error}", err=True)
        raise typer.Exit(1) from None


async def run(settings: Settings) -> int:
    """Run until SIGTERM (0), or until leadership or a part is lost (1)."""
    gc.set_threshold(_GC_THRESHOLD)
    api = await connect(Access(settings.namespace, settings.kubeconfig, settings.context))
    try:
        return await Operator(settings, api).run()
    finally:
        await api.close()


class Operator:
    """All parts of one operator, wired."""

    def __init__(self, settings: Settings, api: client.ApiClient) -> None:
        self._settings = settings
        self._api = api
        self._stop, self._won, self._lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._listed, self._stop_watch = asyncio.Event(), asyncio.Event()
        access = Access(settings.namespace, settings.kubeconfig, settings.context)
        self._elector = Elector(access, won=_from_thread(self._won), lost=_from_thread(self._lost))
        self._reader = Reader(api, settings.namespace)
        kube = KubeSink(api, settings.namespace, leader=self._elector.leading, term=lambda: self._elector.term)
        clock = Clock()
        leading, identity = self._elector.leading, self._elector.identity
        self._events = EventSink(api, settings.namespace, leader=leading, instance=identity)
        self._state = State(wall_offset=clock.offset)
        self._cluster = ""
        self._redis = _redis(settings)
        self._narrator = Narrator(self._state, clock)
        self._mirror = self._make_mirror()
        self._reconciler = Reconciler(self._state, self._reader, kube, self._mirror, clock, narrator=self._narrator)
        self._leases = LeaseStream(api, settings.namespace, self._reconciler)
        self._canary = Canary(api, settings.namespace, self._reconciler, leader=self._elector.leading, clock=clock)

    def _make_mirror(self) -> Mirror | None:
        if self._redis is None:
            return None
        where = {"namespace": self._settings.namespace, "prefix": self._settings.redis_prefix}
        writer = Writer(self._redis, leader=self._elector.leading, **where)

        async def raise_term(term: int) -> None:
            await asyncio.to_thread(self._elector.raise_term, term)

        return Mirror(
            writer,
            term=lambda: self._elector.term,
            raise_term=raise_term,
            cluster=self._cluster_id,
            tell=self._narrator.redis,
        )

    async def _cluster_id(self) -> str:
        """What tells this cluster from others that may share the Redis; read once. Raises Retryable."""
        if not self._cluster:
            try:
                self._cluster = await self._reader.cluster_id()
            except Unavailable as error:
                raise Retryable(f"nothing is written to Redis before this cluster's id is known: {error}") from None
        return self._cluster

    async def run(self) -> int:
        """Run all parts until the first of them ends."""
        self._heed_signals()
        probes = await serve(self._settings.listen, self._checks)
        await self._usable()
        parts = {
            "signal": self._stop.wait(),
            "leadership": self._lost.wait(),
            "leases": self._leases.run(),
            "work": self._work(),
        }
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        handlers = watch.registry(self._reconciler.feed, self._api.configuration)
        watching = watch.watch(handlers, self._settings.namespace, ready=self._listed, stop=self._stop_watch)
        watcher = asyncio.create_task(watching, name="watch")  # last: kopf ends what was made after it
        done, _ = await asyncio.wait([*tasks, watcher], return_when=asyncio.FIRST_COMPLETED)
        hung = await self._end(tasks, watcher)
        await probes.cleanup()
        if hung:
            log.error("parts did not end in time", parts=hung)
            os._exit(1)  # leadership is released; waiting for what does not end would only keep the next one waiting
        return _outcome(done)

    def _heed_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _usable(self) -> None:
        """Wait for the API server, then refuse to work on definitions older than ours (design, section 1)."""
        for kind in Kind:
            while True:
                try:
                    revision = await self._reader.schema_revision(kind)
                    break
                except Unavailable as error:
                    log.warning("waiting for the API server", error=str(error))
                    await asyncio.sleep(_WAIT_SECONDS)
            if revision is None or revision < SCHEMA_REVISION:
                found = (
                    "is not installed" if revision is None else f"has revision {revision}, {SCHEMA_REVISION} is needed"
                )
                raise Unusable(f"the definition of {kind.value} {found}: kubectl apply --server-side -f crds/")

    async def _work(self) -> None:
        """The straight path: list, lead, reconcile; compare Redis once every key was worked on."""
        await asyncio.gather(self._listed.wait(), self._leases.listed.wait())
        self._heed_signals()  # kopf has put its own handlers in their place
        await self._reconciler.open_gate()
        gc.freeze()  # what was listed stays: the collector need not look at it again and again
        self._elector.begin(lambda: self._state.largest_term)
        await self._stand_by()
        log.info("leading", term=self._elector.term, identity=self._elector.identity)
        lease = About("Lease", LEASE_NAME, self._elector.lease_uid, "coordination.k8s.io/v1")
        self._narrator.lead(self._elector.term, lease)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._narrator.run(self._events.post))
            group.create_task(self._canary.run())
            group.create_task(self._reconciler.run())
            if self._mirror:
                await self._reconciler.swept.wait()
                group.create_task(self._mirror.run())

    async def _stand_by(self) -> None:
        """Until we lead: keep warm."""
        warm = asyncio.create_task(self._reconciler.stand_by())
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
        await self._reconciler.finish()
        await asyncio.to_thread(self._elector.stop)
        self._stop_watch.set()
        _, watching = await asyncio.wait([watcher], timeout=_END_SECONDS)
        if self._redis:
            await self._redis.aclose()
        return sorted(task.get_name() for task in {*hung, *watching})

    def _checks(self) -> Mapping[str, str]:
        """What /readyz asks: why a part is not well, empty where it is."""
        checks = {
            "listed": "" if self._state.gate_open else "not everything was listed yet",
            "leading": "" if self._elector.leading() else "another replica leads, or none",
            "leases": "heartbeats cannot be heard" if self._reconciler.is_deaf else "",
        }
        return checks | ({"redis": self._mirror.why} if self._mirror else {})


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
        raise Unusable(str(error)) from None


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


def main() -> None:
    """The console script `hotpool`."""
    sys.exit(app())
