"""Wiring of the agent: settings, state, services, reporter, heartbeat, watches and control socket; and its shut-down.

The only module that knows all parts. Its only rules are the order of start and shut-down (requirements A9, B10).
"""

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import structlog

from hotpool.api.capability import REPORT_SCHEMA_VERSION, Report
from hotpool.api.meta import timestamp
from hotpool.common.health_server import serving
from hotpool.common.kubeconfig import Target
from hotpool_agent import __version__, host_info
from hotpool_agent.blocking import SingleFlightRunner, UnpooledExecutor
from hotpool_agent.capability_watch import CapabilityWatch
from hotpool_agent.catalogue.loader import CatalogueError, read_catalogue
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.control import protocol, socket_server
from hotpool_agent.control.service_documents import service_documents
from hotpool_agent.endpoints.address_watch import AddressWatch
from hotpool_agent.endpoints.checker import EndpointChecker
from hotpool_agent.gpu_reader import GpuReader
from hotpool_agent.kube.http_client import KubeHttpClient
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.pod_identity import kube_node
from hotpool_agent.metrics import Metrics
from hotpool_agent.paths import log_folder, socket_path, state_folder
from hotpool_agent.pods.pod_watch import PodServices
from hotpool_agent.probes import http_tcp
from hotpool_agent.reporting.heartbeat import Heartbeat
from hotpool_agent.reporting.report_builder import stamped
from hotpool_agent.reporting.report_source import ReportSource
from hotpool_agent.reporting.reporter import Reporter
from hotpool_agent.service_manager import CommandError, ServiceManager, Verb
from hotpool_agent.services import child_reaper, ports
from hotpool_agent.services.log_rotation import rotate_forever
from hotpool_agent.settings import Settings
from hotpool_agent.shutdown import ShutDown
from hotpool_agent.state_store import StateStore, lock, open_store
from hotpool_agent.stop_signals import StopSignals
from hotpool_agent.task_scopes import background, unless_stopped

_LOG: Final = structlog.get_logger(__name__)
_CATALOGUE_SECONDS: Final = 30.0
"""Time to read and check a catalogue of the maximum size."""
_START_SECONDS: Final = 5.0
"""Time in which the services are known, because reading the processes has a limit; less than a command waits."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command line."""

    catalogue: Catalogue
    source: Path | None
    """File of the catalogue, read again on SIGHUP. None: no file, and `catalogue` is empty."""
    node: str
    target: Target
    settings: Settings


@dataclass(frozen=True, slots=True)
class Health:
    """State of the agent: whether the API server holds the present report, and problems by part."""

    ready: bool
    problems: dict[str, str]


class Agent:
    """All parts of one agent, connected to each other. Nothing runs before `run`."""

    def __init__(self, options: Options, resources: NodeResources, store: StateStore) -> None:
        settings = options.settings
        self.settings = settings
        self.store = store
        self.resources = resources
        self.blank = Report(
            schema_version=REPORT_SCHEMA_VERSION,
            agent_version=__version__,
            # The state folder may be lost with a replaced pod; the Node's uid stays the same (requirement B12).
            instance=node.uid if (node := kube_node(options.target)) else store.state.instance,
            session=uuid4().hex,
            epoch=0,
            sequence=0,
            time="",
            interval_seconds=settings.interval,
            platform=host_info.this_platform(node.name if node else None),
            hardware=host_info.this_hardware(),
        )
        """The report without services and stamps: what stays the same while the agent runs."""
        self.catalogue_problem: str | None = None
        self._source = options.source
        self._runner = SingleFlightRunner()
        self._catalogue_lock = asyncio.Lock()
        """Held from the reading of a catalogue until its services are in place."""
        base = (options.source or store.folder).absolute().parent
        self.metrics = Metrics()
        self.reporter = Reporter(resources, self.blank, settings, self.metrics)
        self.pods = PodServices(resources, settings, self.reporter)
        self.gpus = GpuReader(self.reporter, store=store)
        self.endpoints = EndpointChecker(settings.interval, self.reporter)
        self.services = ServiceManager(
            options.catalogue,
            base,
            self.blank,
            store,
            settings,
            reporting=self.reporter,
            pods=self.pods,
            gpus=self.gpus,
            endpoints=self.endpoints,
        )
        self.addresses = AddressWatch(settings, self.endpoints, self._advertised, lambda: resources.client.server)
        self.source = self.reporter.source = ReportSource(self.services, self.blank, self.metrics)
        self.heartbeat = Heartbeat(resources, settings, self.reporter, self.metrics)
        self.watch = CapabilityWatch(resources, settings, self.reporter, self.services)
        self.metrics.expose(
            self.services.statuses,
            connected=self._is_connected,
            pods={watch.namespace: watch.is_synced for watch in self.pods.watches},
            gpus=lambda: self.gpus.problem is None,
        )
        self.listening: str | None = None
        """Address that serves /healthz, /readyz and /metrics."""

    async def run(self, signals: StopSignals) -> None:
        """Run until the first signal, then shut down in order, or at once after the second.

        Raises the error that ended a part.
        """
        # Name resolution and file access use the loop's default executor.
        asyncio.get_running_loop().set_default_executor(UnpooledExecutor())
        logs = log_folder(self.store.folder)
        maintenance = (self.store.write_forever(), rotate_forever(logs), self.gpus.run(), self.addresses.run())
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
            background(maintenance) as tasks,
        ):
            async with self._catalogue_lock:
                await self.services.start(session)
            tasks.extend(
                asyncio.create_task(coroutine)
                for coroutine in (
                    *(watch.run() for watch in self.pods.watches),
                    self._report(),
                    self.heartbeat.run(),
                    self.watch.run(),
                    self.reload_on_sighup(signals.reload_requests),
                )
            )
            stopped = asyncio.create_task(signals.stop.wait())
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            await ShutDown(self.services, self.reporter, self.store, self.settings).run(signals)

    def _advertised(self) -> tuple[str, ...]:
        advertise = self.services.catalogue.advertise
        return advertise.addresses if advertise else ()

    def _is_connected(self) -> bool:
        """Return True if the API server accepts heartbeats, and reports unabridged."""
        report = self.reporter.problem or self.reporter.state.rejected or self.source.problem
        return report is None and self.heartbeat.problem is None

    async def _report(self) -> None:
        """Report after the first listing of pods: an earlier report would withdraw those not listed (A11)."""
        await self.pods.wait_listed()
        await self.reporter.run()

    async def reload(self) -> str:
        """Read the catalogue again and apply it (requirement A10). Return a summary for people.

        Raises CatalogueError with all errors; the current catalogue then stays in force.
        """
        if self._source is None:
            raise CatalogueError(["this agent has no catalogue; give it one with --catalogue"])
        async with self._catalogue_lock:
            try:
                catalogue = await self._read_catalogue(self._source)
            except CatalogueError as error:
                self.catalogue_problem = str(error)
                raise
            self.catalogue_problem = None
            # The look begins in a later turn of the event loop, with the new catalogue.
            self.addresses.request()
            return await self.services.reload(catalogue)

    async def _read_catalogue(self, path: Path) -> Catalogue:
        if self._runner.is_running(path):
            raise CatalogueError([f"{path}: cannot be read: an earlier reading still waits for the file system"])
        try:
            async with asyncio.timeout(_CATALOGUE_SECONDS):
                return await self._runner.run(path, lambda: read_catalogue(path))
        except TimeoutError as error:
            raise CatalogueError([f"{path}: cannot be read: not done in {_CATALOGUE_SECONDS:g} s"]) from error

    async def reload_on_sighup(self, reload_requests: asyncio.Queue[None]) -> None:
        """Reload the catalogue once for each SIGHUP, and read the GPUs again."""
        while True:
            await reload_requests.get()
            self.gpus.request()
            try:
                _LOG.info("catalogue reloaded", outcome=await self.reload())
            except CatalogueError as error:
                _LOG.error("catalogue invalid; keeping the current one", errors=error.errors)

    async def dispatch(self, request: protocol.Request) -> Any:
        """Carry out a request of the local command line (requirement A2). Raises RequestError."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self.services.known.wait()
        except TimeoutError:
            raise protocol.RequestError("the agent is starting, and still reads the list of processes") from None
        try:
            return await self._perform(request)
        except (CatalogueError, CommandError) as error:
            raise protocol.RequestError(str(error)) from error

    async def _perform(self, request: protocol.Request) -> Any:
        match request.op:
            case "status":
                return self._status(request.id)
            case "report":
                return stamped(
                    self.source.read(), self.reporter.state.epoch, self.reporter.state.sequence + 1, timestamp()
                )
            case "reload":
                return await self.reload()
            case "drain" | "undrain" as verb:
                return await self._set_draining(draining=verb == "drain")
            case "stop-all":
                return await self._stop_all(wait=request.wait)
            case "start" | "stop" | "restart" as verb:
                return await self._command(verb, request)

    def health(self) -> Health:
        """Return readiness and the current problem of each part."""
        left_out = self.source.read().dropped
        silent = "stopped: this agent could not report its present state" if self.reporter.is_failing() else None
        reports = (self.source.problem, self.reporter.problem or self.reporter.state.rejected)
        parts = {
            "report": "; ".join(filter(None, reports)),
            "heartbeat": silent or self.heartbeat.problem,
            "watch": self.watch.problem,
            "credentials": self.resources.client.credentials_problem,
            "catalogue": self.catalogue_problem,
            "state": self.store.problem,
            "pods": self.services.pods_problem(left_out),
            "gpus": self.gpus.problem,
            "addresses": self.addresses.problem,
        }
        return Health(self.reporter.is_current(), {part: problem for part, problem in parts.items() if problem})

    async def _command(self, verb: Verb, request: protocol.Request) -> str:
        if request.id is None:
            raise protocol.RequestError("which service? give its id")
        return await self.services.command(verb, request.id, wait=request.wait)

    async def _stop_all(self, *, wait: bool) -> str:
        """Stop the services that the agent runs, all at once. Return a line for each, or raise RequestError."""
        errors: list[str] = []

        async def stop(name: str) -> str:
            try:
                return await self.services.command("stop", name, wait=wait)
            except CommandError as error:
                errors.append(str(error))
                return ""

        supervised = [name for name, service in self.services.services.items() if not service.machine.observed]
        outcomes = await asyncio.gather(*map(stop, supervised))
        if errors:
            raise protocol.RequestError("\n".join(errors))
        return "\n".join(outcomes) or "the agent runs no service"

    async def _set_draining(self, *, draining: bool) -> str:
        """Begin or end the owner's drain, and report it (requirement C5). Raises RequestError."""
        _LOG.info("drain", draining=draining)
        self.store.state.draining = draining
        self.store.save()
        self.reporter.changed()
        # As for a desired state: it must be on disk before it is confirmed.
        if not await self.store.flush_within(self.settings.request_seconds):
            raise protocol.RequestError("done, but it cannot be written to disk; see the agent's log")
        outcome = f"{self.resources.node}: {'draining' if draining else 'not draining'}"
        try:
            async with asyncio.timeout(self.settings.announce_seconds):
                await self.reporter.flush()
        except TimeoutError:
            return f"{outcome}, but not reported yet: {self.reporter.problem or 'the API server has not responded'}"
        return outcome

    def _status(self, identifier: str | None) -> dict[str, Any]:
        statuses = self.services.statuses()
        known = [status.spec.id for status in statuses]
        if identifier is not None and identifier not in known:
            raise protocol.RequestError(f"{identifier}: no such service; there are: {', '.join(known) or 'none'}")
        return {
            "node": self.resources.node,
            "namespace": self.resources.client.namespace,
            "instance": self.blank.instance,
            "session": self.blank.session,
            "epoch": self.reporter.state.epoch,
            "sequence": self.reporter.state.sequence,
            "acceptedAt": self.reporter.state.accepted_at,
            "leaving": self.services.leaving,
            "draining": self.services.draining,
            "agentVersion": self.blank.agent_version,
            "listening": self.listening,
            "addresses": [{"ip": item.ip, "source": item.source} for item in self.endpoints.addresses],
            "problems": self.health().problems,
            "droppedItems": list(self.source.dropped_items),
            "services": service_documents(statuses, self.services.catalogue, self._not_offered(), identifier),
        }

    def _not_offered(self) -> str | None:
        """Return the reason why no service of the node is offered, even if it runs."""
        reasons = {
            "Leaving": self.services.leaving,
            "ReportFailed": self.source.problem,
            "ReportRejected": self.reporter.state.rejected,
            "NotReported": self.reporter.holder() is None,
            "Draining": self.services.draining,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)


async def run_agent(options: Options) -> int:
    """Run the agent of one node until SIGTERM or SIGINT. Return the exit code.

    Raises TargetError, StoreError, PathError or ListenError.
    """
    signals = StopSignals()
    signals.install()
    child_reaper.become_subreaper()
    folder = state_folder(options.node)
    path = socket_path(folder)
    with lock(folder, options.node):
        store = open_store(folder)
        if store.unreadable_copy:
            _LOG.error("state file unreadable; starting with an empty state", moved_to=str(store.unreadable_copy))
        client = KubeHttpClient(options.target, options.settings.request_seconds)
        if not await unless_stopped(client.open(), signals.stop):
            return signals.exit_code
        agent = Agent(options, NodeResources(client, options.node), store)
        server = await socket_server.serve(path, agent.dispatch)
        try:
            async with background([child_reaper.reap_forever()]):
                await agent.run(signals)
        finally:
            server.close()
            path.unlink(missing_ok=True)
            await client.close()
    return signals.exit_code
