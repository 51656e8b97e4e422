"""The wiring of a running agent: settings → state → node → reporter, heartbeat, watch, control; and its shut-down.

The only place that knows all parts; holds no rule of its own but the order of start and end (requirements A9, B10).
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import structlog

from hotpool.api.meta import timestamp
from hotpool.common.health_server import serving
from hotpool_agent import __version__, host_info
from hotpool_agent.catalogue.loader import CatalogueError, read_catalogue
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.control import protocol, socket_server
from hotpool_agent.kube.capability_watch import CapabilityWatch
from hotpool_agent.kube.credentials import Target
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.pod_identity import kube_node
from hotpool_agent.metrics import Metrics
from hotpool_agent.paths import log_folder, socket_path, state_folder
from hotpool_agent.pods.pod_watch import PodServices
from hotpool_agent.probes import http_tcp
from hotpool_agent.reporting.commands import intents_in
from hotpool_agent.reporting.heartbeat import Heartbeat
from hotpool_agent.reporting.ownership import stored_in
from hotpool_agent.reporting.report_builder import AgentInfo, stamped
from hotpool_agent.reporting.report_limits import DropCounter, bounded_services
from hotpool_agent.reporting.reporter import Reporter
from hotpool_agent.service_manager import CommandError, ReportingPort, ServiceManager, Verb
from hotpool_agent.services import ports
from hotpool_agent.services.log_rotation import rotate_forever
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StateStore, lock, open_store

_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    catalogue: Catalogue
    source: Path | None
    """The catalogue's file, which is read again on SIGHUP; None: there is none, and `catalogue` is empty."""
    node: str
    target: Target
    settings: Settings


@dataclass(frozen=True, slots=True)
class Health:
    """State of the agent: whether the API server holds the present report, and problems by part."""

    ready: bool
    problems: dict[str, str]


class Agent:
    """All parts of one agent, connected; nothing runs yet."""

    def __init__(self, options: Options, cluster: NodeResources, store: StateStore) -> None:
        settings = options.settings
        self.settings = settings
        self.store = store
        self.resources = cluster
        self.info = AgentInfo(
            agent_version=__version__,
            # What is remembered may be gone with a pod that is replaced; its Node stays (requirement B12).
            instance=node.uid if (node := kube_node(options.target)) else store.state.instance,
            session=uuid4().hex,
            interval=settings.interval,
            platform=host_info.this_platform(node.name if node else None),
            hardware=host_info.this_hardware(),
        )
        self.catalogue_problem: str | None = None
        self._source = options.source
        self._starting = asyncio.Lock()
        """Held from the reading of a catalogue until it is the node's."""
        base = (options.source or store.folder).absolute().parent
        self.pods = PodServices(cluster, settings, self._pods_changed)
        self.services = ServiceManager(options.catalogue, base, self.info, store, settings, pods=self.pods)
        self.metrics = Metrics()
        self.reporter = Reporter(cluster, self.info, settings, self.services.content, self.metrics)
        self.heartbeat = Heartbeat(cluster, settings, self.reporter.holder, self.reporter.notifier, self.metrics)
        self.watch = CapabilityWatch(cluster, settings, self._observe)
        self.metrics.show(
            self.services.snapshots,
            connected=self._on_stored_report,
            pods=lambda: {watch.namespace: watch.words is None for watch in self.pods.watches},
        )
        self.listening: str | None = None
        """Where /healthz, /readyz and /metrics are served."""

    async def run(self, stop: asyncio.Event, hangups: asyncio.Queue[None] | None = None) -> None:
        """Run until `stop`, then shut down in order. Raises what a part died of."""
        housework = (self.store.write_forever(), rotate_forever(log_folder(self.store.folder)))
        async with (
            serving(
                self.settings.listen,
                self.metrics.registry,
                # Problems with the cluster are no reason to restart the agent: that the event loop runs is enough.
                healthz=lambda: (True, {"problems": self.health().problems}),
                readyz=lambda: ((health := self.health()).ready, asdict(health)),
                port_owner=ports.owner,
            ) as self.listening,
            http_tcp.new_session() as session,
            _background(housework) as background,
        ):
            async with self._starting:
                await self.services.start(session, ReportingPort(self.reporter.changed, self.reporter.withdrawn))
            background.extend(
                asyncio.create_task(work)
                for work in (
                    *(watch.run() for watch in self.pods.watches),
                    self._report(),
                    self.heartbeat.run(),
                    self.watch.run(),
                    self.reload_on_sighup(hangups or asyncio.Queue()),
                )
            )
            ended = asyncio.create_task(stop.wait())
            await asyncio.wait([ended, *background], return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            await self._shut_down(asked=stop.is_set())

    def _on_stored_report(self) -> bool:
        """Whether the API server takes what we say: reports, as they are, and heartbeats."""
        return self.reporter.problem is None and self.reporter.rejected is None and self.heartbeat.problem is None

    async def _report(self) -> None:
        """A report before all services are known would withdraw those that are not (requirement A11)."""
        await self.pods.listed()
        await self.reporter.run()

    async def reload(self) -> str:
        """Read the catalogue again and make it the node's (requirement A10); a sentence for people.

        Raises CatalogueError with all that is wrong; the catalogue that holds stays in force then.
        """
        if self._source is None:
            raise CatalogueError(["this agent has no catalogue; give it one with --catalogue"])
        async with self._starting:
            try:
                catalogue = await asyncio.to_thread(read_catalogue, self._source)
            except CatalogueError as error:
                self.catalogue_problem = str(error)
                raise
            self.catalogue_problem = None
            return await self.services.reload(catalogue)

    async def reload_on_sighup(self, hangups: asyncio.Queue[None]) -> None:
        """Reload once for each SIGHUP."""
        while True:
            await hangups.get()
            try:
                _LOG.info("catalogue read again", outcome=await self.reload())
            except CatalogueError as error:
                _LOG.error("catalogue not taken over", errors=error.errors)

    def _pods_changed(self) -> None:
        self.reporter.changed()

    def _observe(self, capability: dict[str, Any] | None) -> None:
        self.reporter.observe(stored_in(capability))
        self.services.intend(intents_in(capability))

    async def dispatch(self, request: protocol.Request) -> Any:
        """Answer the local command line (requirement A2)."""
        match request.op:
            case "status":
                return self._status(request.id)
            case "report":
                return stamped(self.services.content(), self.reporter.epoch, self.reporter.sequence + 1, timestamp())
            case "reload":
                return await self._reload()
            case "start" | "stop" | "restart" as verb:
                return await self._command(verb, request)

    def health(self) -> Health:
        """How the agent is, for those who watch over it."""
        parts = {
            "report": self.reporter.problem or self.reporter.rejected,
            "heartbeat": self.heartbeat.problem,
            "watch": self.watch.problem,
            "catalogue": self.catalogue_problem,
            "state": self.store.problem,
            "pods": self.services.pods_problem(),
        }
        return Health(self.reporter.current(), {part: problem for part, problem in parts.items() if problem})

    async def _command(self, verb: Verb, request: protocol.Request) -> str:
        if request.id is None:
            raise protocol.RequestError("which service? give its id")
        try:
            return await self.services.command(verb, request.id, wait=request.wait)
        except CommandError as error:
            raise protocol.RequestError(str(error)) from error

    async def _reload(self) -> str:
        try:
            return await self.reload()
        except CatalogueError as error:
            raise protocol.RequestError(str(error)) from error

    def _status(self, identifier: str | None) -> dict[str, Any]:
        known = {snapshot.spec.id: snapshot for snapshot in self.services.snapshots()}
        if identifier is not None and identifier not in known:
            raise protocol.RequestError(f"{identifier}: no such service; there are: {', '.join(known) or 'none'}")
        wanted = [snapshot for name, snapshot in known.items() if identifier in {None, name}]
        return {
            "node": self.resources.node,
            "namespace": self.resources.namespace,
            "instance": self.info.instance,
            "session": self.info.session,
            "epoch": self.reporter.epoch,
            "sequence": self.reporter.sequence,
            "acceptedAt": self.reporter.accepted_at,
            "leaving": self.services.leaving,
            "agentVersion": self.info.agent_version,
            "listening": self.listening,
            "problems": self.health().problems,
            "services": [s.model_dump(mode="json", by_alias=True) for s in bounded_services(wanted, DropCounter())],
        }

    async def _shut_down(self, *, asked: bool) -> None:
        """`leaving` is reported first; then services end, side by side; then the last state is reported (B10).

        With `onAgentExit: keep`, or when nobody asked for it because a part has died, nothing is reported and nothing
        ends: the next agent goes on with what runs (A11).
        """
        _LOG.info("shutting down", asked=asked, on_agent_exit=self.services.catalogue.on_agent_exit)
        if not asked or self.services.catalogue.on_agent_exit == "keep":
            await self.store.flush_within(self.settings.request_seconds)
            await self.services.close()
            return
        self.services.shut_down()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.announce_seconds):
                await self.reporter.flush()
        await self.services.settle()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.request_seconds if self.reporter.problem is None else 0):
                await self.reporter.flush()
        await self.store.flush_within(self.settings.request_seconds)
        await self.services.close()


async def run_agent(options: Options) -> None:
    """Run the agent of one node until SIGTERM or SIGINT. Raises TargetError, StoreError, PathError or ListenError."""
    folder = state_folder(options.node)
    path = socket_path(folder)
    with lock(folder, options.node):
        store = open_store(folder)
        if store.moved:
            _LOG.error("state file was unreadable; beginning anew", moved_to=str(store.moved))
        cluster = NodeResources(options.target, options.node, options.settings.request_seconds)
        await cluster.connect()
        agent = Agent(options, cluster, store)
        server = await socket_server.serve(path, agent.dispatch)
        try:
            await agent.run(*_signals())
        finally:
            server.close()
            path.unlink(missing_ok=True)
            await cluster.close()


def _signals() -> tuple[asyncio.Event, asyncio.Queue[None]]:
    """Set at SIGTERM and SIGINT; filled at each SIGHUP."""
    stop, hangups = asyncio.Event(), asyncio.Queue[None]()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangups.put_nowait, None)
    return stop, hangups


@asynccontextmanager
async def _background(works: Iterable[Any]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that end with the block; what one of them died of is raised at its end."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield tasks
    finally:
        died = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in died:
        task.result()
