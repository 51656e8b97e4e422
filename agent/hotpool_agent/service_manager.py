"""Manager of all services of one node: commands, desired states, report (requirements A2, A8 to A11, B10).

Must not know how reports are sent.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import aiohttp
import structlog

from hotpool.api.capability import Report, ServiceIntent, ServiceState
from hotpool_agent.catalogue.model import Catalogue, ServiceSpec
from hotpool_agent.endpoints.checker import EndpointChecker
from hotpool_agent.gpu_reader import GpuReader
from hotpool_agent.node_drain import NodeDrain
from hotpool_agent.paths import log_folder
from hotpool_agent.pods.pod_watch import PodServices
from hotpool_agent.probes.prober import Prober
from hotpool_agent.reporting.commands import is_carried_out, new_commands
from hotpool_agent.reporting.report_builder import ReportContent, build
from hotpool_agent.reporting_port import Reporting
from hotpool_agent.services import events, orphans
from hotpool_agent.services.context import ServiceContext
from hotpool_agent.services.controller import ServiceController, launch_digest
from hotpool_agent.services.launch import StuckError
from hotpool_agent.services.members import read_all
from hotpool_agent.services.process import Process
from hotpool_agent.services.start_queue import StartQueue
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.services.stored_failure import forget_failure
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StateStore, StoredServiceState

Verb = Literal["start", "stop", "restart"]
_TARGET_STATE: Final[dict[Verb, ServiceState]] = {"start": "Running", "stop": "Stopped", "restart": "Running"}
_EVENT: Final[dict[Verb, events.Event]] = {"start": events.Start(), "stop": events.Stop(), "restart": events.Restart()}
_LOG: Final = structlog.get_logger(__name__)
_OBSERVED: Final = "observed only; Kubernetes starts and stops it, by kubectl scale or kubectl delete pod"
FIRST_PROBE_SECONDS: Final = 5.0
_FLUSH_SECONDS: Final = 5.0
_TRACK_SECONDS: Final = 30.0


class CommandError(Exception):
    """A command could not be carried out; the message says why."""


class ServiceManager:
    """The services of a catalogue, and those that are pods. `base`: the catalogue's folder."""

    def __init__(
        self,
        catalogue: Catalogue,
        base: Path,
        blank: Report,
        store: StateStore,
        settings: Settings,
        *,
        reporting: Reporting,
        pods: PodServices,
        gpus: GpuReader,
        endpoints: EndpointChecker,
    ) -> None:
        self.services: dict[str, ServiceController] = {}
        self.known = asyncio.Event()
        """Set when `services` holds all of the catalogue, with the processes that earlier agents left."""
        self.leaving = False
        self.node_drain = NodeDrain(blank.session, self._follow_drain)
        self.catalogue = catalogue
        self._base = base
        self._blank = blank
        self._store = store
        self._settings = settings
        self._reporting = reporting
        self._pods = pods
        self._gpus = gpus
        self._endpoints = endpoints
        self._context: ServiceContext | None = None
        self._intents: tuple[ServiceIntent, ...] | None = None
        """Commands in the node's object; None until it was read."""
        self._tracking: asyncio.Task[None] | None = None
        self._stuck: dict[str, tuple[Process, asyncio.Task[None]]] = {}
        """Processes of removed services that did not end, and the waiting for their end; by service id."""
        self._orphan_tasks: dict[str, asyncio.Task[None]] = {}
        """Ends of processes whose service is not in the catalogue, or is only observed now; by service id."""

    def content(self) -> ReportContent:
        """Build the current report."""
        _, rejected = self._pods.services(self.services.keys())
        hardware = self._blank.hardware and self._blank.hardware.model_copy(update={"gpus": self._gpus.gpus})
        return build(
            self.catalogue,
            self.statuses(),
            self._blank.model_copy(update={"hardware": hardware, "addresses": self._endpoints.addresses}),
            leaving=self.leaving,
            draining=self.draining,
            refused=rejected,
        )

    @property
    def draining(self) -> bool:
        """True while the machine's owner, or the agent before its stop, drains the node."""
        return self._store.state.draining or self.node_drain.requested

    def statuses(self) -> list[ServiceStatus]:
        """Return the status of all services: those of the catalogue, then pods."""
        pods, _ = self._pods.services(self.services.keys())
        commanded = {entry.id for entry in self._intents or ()}
        return [
            *(service.status() for service in self.services.values()),
            *(_with_ignored_command(pod) if pod.spec.id in commanded else pod for pod in pods),
        ]

    def pods_problem(self, left_out: Iterable[str]) -> str | None:
        """Return failed pod watches, and pods that are not reported, as text. None without a problem.

        `left_out`: pods, as NAMESPACE/NAME, that do not fit into the report.
        """
        if not self._pods.watches:
            return None
        _, rejected = self._pods.services(self.services.keys())
        dropped = [f"pod {pod}: the report has no room for it" for pod in left_out]
        return self._pods.problem([*rejected, *dropped])

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Adopt orphaned processes, then start the services whose desired state is Running, in the catalogue's order.

        Return when all services that exist already, and their endpoints, were probed, or after 5 s.
        """
        folder = self._store.folder
        log_folder(folder).mkdir(mode=0o700, exist_ok=True)
        self._context = ServiceContext(
            settings=self._settings,
            base=self._base,
            prober=Prober(session, self._base),
            endpoints=self._endpoints,
            reporting=self._reporting,
            store=self._store,
            node_drain=self.node_drain,
            start_queue=StartQueue(),
        )
        specs = {spec.id: spec for spec in self.catalogue.services}
        orphaned = await orphans.find(folder, self._store.state, {name: spec.port for name, spec in specs.items()})
        for name in self._store.state.services.keys() - specs.keys():
            self._forget(name)
        for spec in specs.values():
            self._add(spec, self._context)
        # Orphaned processes first: one that still loads must be in the start queue before others request it.
        for name, service in sorted(self.services.items(), key=lambda item: item[0] not in orphaned.adoptable):
            fit = name in orphaned.adoptable
            processes = orphaned.adoptable if fit else orphaned.leftovers
            service.adopt_or_start(processes.pop(name, None) if service.spec.run else None, fit=fit)
        for name, process in (orphaned.leftovers | orphaned.adoptable).items():
            self._end_in_background(name, process)
        self.known.set()
        self._tracking = asyncio.create_task(self._track_members())
        self._store.save()
        # The instance must be on disk before the first report contains it.
        await self._store.flush_within(_FLUSH_SECONDS)
        await self._wait_first_probes()

    async def reload(self, catalogue: Catalogue) -> str:
        """Apply a catalogue: stop removed services, start new ones, replace those with another `launch_digest` (A10).

        Return a summary when the services that must stop have stopped. Call one at a time, and not during `start`.
        """
        old = {name: service.spec for name, service in self.services.items()}
        new = {spec.id: spec for spec in catalogue.services}
        removed = [name for name in old if name not in new]
        replaced = [name for name in old if name in new and launch_digest(old[name]) != launch_digest(new[name])]
        revised = [name for name in old if name in new and name not in replaced and old[name] != new[name]]
        self.catalogue = catalogue
        for name in revised:
            self.services[name].revise(new[name])
        self._reporting.changed()
        await asyncio.gather(*(self._remove(name) for name in (*removed, *replaced)))
        for name in removed:
            self._forget(name)
        for name in replaced:
            forget_failure(self._store.state.services[name])
        await asyncio.gather(*(self._orphan_tasks[name] for name in new if name in self._orphan_tasks))
        for name in revised:
            self._follow_auto_start(self.services[name])
        self._add_missing(new)
        counts = (len(new.keys() - old.keys()), len(removed), len(replaced), len(revised))
        return "added {}, removed {}, replaced {}, revised {}".format(*counts)

    async def command(self, verb: Verb, identifier: str, *, wait: bool) -> str:
        """Start, stop or restart a service for a user: store the desired state, then act. `wait`: until it is reached.

        Return a sentence for the user; a repeated command is a success. Raises CommandError.
        """
        service = self._find(identifier)
        repeated = service.machine.state == _TARGET_STATE[verb] and verb != "restart"
        self._set_desired(service, _TARGET_STATE[verb], "local")
        service.handle(_EVENT[verb])
        # The desired state must be on disk before the command is confirmed.
        if not await self._store.flush_within(_FLUSH_SECONDS):
            raise CommandError(
                f"{identifier}: done, but the desired state cannot be written to disk; see the agent's log"
            )
        if not wait:
            return f"{identifier}: {service.machine.state}"
        await service.wait_settled()
        return self._outcome(service, verb, repeated=repeated)

    def apply_intents(self, intents: Iterable[ServiceIntent] | None) -> None:
        """Carry out new commands from the cluster. None: the object is missing."""
        if intents is not None:
            self._intents = tuple(intents)
            self._forget_withdrawn_commands()
            self._apply_commands()
            # The report says that commands to pods are ignored.
            self._reporting.changed()

    def _apply_commands(self) -> None:
        controllable = {
            name: service
            for name, service in self.services.items()
            if not service.machine.observed and not service.machine.halted
        }
        acted = {name: service.stored.acted for name, service in controllable.items()}
        for entry in new_commands(self._intents or (), acted):
            service = controllable[entry.id]
            service.stored.acted = (entry.desired, entry.request_id)
            self._set_desired(service, entry.desired, "cluster")
            self._store.save()
            service.handle(events.Start() if entry.desired == "Running" else events.Stop())
            self._reporting.changed()

    def _follow_auto_start(self, service: ServiceController) -> None:
        """Start a service whose `autoStart` a user has set since the agent last saw it: an edit is a command, too."""
        if service.follow_auto_start():
            self._store.save()
            service.handle(events.Start())

    def begin_drain(self) -> None:
        """Report the node as draining until the agent has ended (requirement B10)."""
        self.node_drain.request()
        self._reporting.changed()

    def _follow_drain(self) -> None:
        for service in self.services.values():
            service.follow_drain()

    def shut_down(self) -> None:
        """Begin the shut-down: the next report has `leaving`, all services stop, desired states are kept."""
        self.leaving = True
        for service in self.services.values():
            service.handle(events.Halt())
        self._reporting.changed()

    async def wait_settled(self) -> None:
        """Return when no operation of any service runs."""
        services = (service.wait_settled() for service in self.services.values())
        await asyncio.gather(*services, *self._orphan_tasks.values())

    def hasten(self) -> None:
        """Kill all services that have not ended yet."""
        for service in self.services.values():
            service.handle(events.Hasten())

    async def close(self) -> None:
        """Cancel all tasks; processes keep running."""
        freeing = (task for _, task in self._stuck.values())
        tasks = [*self._orphan_tasks.values(), *freeing, *filter(None, [self._tracking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(service.close() for service in self.services.values()))
        await asyncio.gather(*tasks, self._endpoints.close(), return_exceptions=True)
        if self._context:
            await self._context.prober.close()

    def _add(self, spec: ServiceSpec, context: ServiceContext) -> None:
        stored = self._store.state.services.setdefault(spec.id, StoredServiceState())
        stored.removed = False
        self.services[spec.id] = ServiceController(spec, stored, context)

    def _forget(self, identifier: str) -> None:
        """Delete the stored state of a service that the catalogue no longer has.

        Its commands stay while the node's object has the last one from the cluster. Otherwise the service, added again,
        would carry out that one again, even after a later local command.
        """
        stored = self._store.state.services.pop(identifier)
        if stored.acted is not None:
            commands = {"desired": stored.desired, "desired_by": stored.desired_by, "acted": stored.acted}
            self._store.state.services[identifier] = StoredServiceState(removed=True, **commands)
            self._forget_withdrawn_commands()

    def _forget_withdrawn_commands(self) -> None:
        """Delete the stored state of removed services whose last command the node's object no longer has."""
        if self._intents is None:
            return
        for name, stored in list(self._store.state.services.items()):
            if stored.removed and not is_carried_out(self._intents, name, stored.acted):
                del self._store.state.services[name]
                self._store.save()

    async def _remove(self, identifier: str) -> None:
        service = self.services[identifier]
        service.handle(events.Halt())
        await service.wait_settled()
        if service.machine.stuck:
            _LOG.error("service removed, but its process did not end", id=identifier, error=service.machine.last_error)
        if process := await service.close():
            self._stuck[identifier] = process, asyncio.create_task(process.free())
        del self.services[identifier]

    def _add_missing(self, specs: dict[str, ServiceSpec]) -> None:
        """Add and start the missing services, in the order of the catalogue."""
        if self._context is None or self.leaving:
            return
        missing = [spec for spec in specs.values() if spec.id not in self.services]
        for spec in missing:
            self._add(spec, self._context)
        self.services = {name: self.services[name] for name in specs}
        for spec in missing:
            process, waiting = self._stuck.pop(spec.id, (None, None))
            if waiting:
                waiting.cancel()
            self.services[spec.id].adopt_or_start(process, fit=False)
        self._store.save()
        self._apply_commands()
        self._reporting.changed()

    def _find(self, identifier: str) -> ServiceController:
        service = self.services.get(identifier)
        if service is None:
            known = {status.spec.id: status.pod for status in self.statuses()}
            if pod := known.get(identifier):
                raise CommandError(f"{identifier} is pod {pod}: {_OBSERVED}")
            raise CommandError(f"{identifier}: no such service; there are: {', '.join(known) or 'none'}")
        if service.machine.observed:
            raise CommandError(f"{identifier} is observed only: another program starts and stops it")
        if self.leaving:
            raise CommandError("the agent is shutting down")
        if service.machine.halted:
            raise CommandError(f"{identifier} is being removed or replaced because the catalogue changed")
        return service

    def _set_desired(self, service: ServiceController, desired: str, by: str) -> None:
        stored = service.stored
        if (stored.desired, stored.desired_by) != (desired, by):
            stored.desired, stored.desired_by = desired, by
            self._store.save()
            self._reporting.changed()

    def _outcome(self, service: ServiceController, verb: Verb, *, repeated: bool) -> str:
        state, error, identifier = service.machine.state, service.status().last_error, service.spec.id
        if state == _TARGET_STATE[verb]:
            return f"{identifier}: {state}{' already' if repeated else ''}"
        if state == "Failed":
            raise CommandError(f"{identifier}: {error}")
        raise CommandError(f"{identifier}: {state}, because of a later command")

    def _end_in_background(self, identifier: str, process: Process) -> None:
        async def end() -> None:
            _LOG.info("ending orphaned process of an earlier agent", id=identifier, pid=process.pid)
            try:
                await process.end(self._settings.stop_seconds)
            except StuckError as error:
                _LOG.error("orphaned process did not end", id=identifier, error=str(error))

        task = self._orphan_tasks[identifier] = asyncio.create_task(end())
        task.add_done_callback(lambda _: self._orphan_tasks.pop(identifier, None))

    async def _track_members(self) -> None:
        """Remember which processes descend from a service: once their parent has ended, nothing shows it."""
        while True:
            await asyncio.sleep(_TRACK_SECONDS)
            if any(service.machine.pid for service in self.services.values()):
                with suppress(TimeoutError):
                    table = await read_all()
                    for service in self.services.values():
                        service.remember(table)

    async def _wait_first_probes(self) -> None:
        try:
            async with asyncio.timeout(FIRST_PROBE_SECONDS):
                for service in self.services.values():
                    await service.notifier.wait_for(lambda service=service: service.probed)  # type: ignore[misc]
                    await self._endpoints.wait_checked(service.spec.id)
        except TimeoutError:
            _LOG.warning("first report sent before all existing services were probed (timeout)")


def _with_ignored_command(pod: ServiceStatus) -> ServiceStatus:
    """Add to a pod's error that its command from the cluster is ignored."""
    ignored = f"the command in spec.services is ignored: a pod is {_OBSERVED}"
    return replace(pod, last_error="; ".join(filter(None, (pod.last_error, ignored))))
