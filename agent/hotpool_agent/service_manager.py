"""All services of one node, the wishes about them, and the report of the moment (requirements A2, A8-A11, B10).

`control` and the own watch give it commands, `reporter` reads its report. Must not know how reports travel.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import aiohttp
import structlog

from hotpool.api.capability import ServiceIntent, ServiceState
from hotpool_agent.catalogue.model import Catalogue, ServiceSpec
from hotpool_agent.paths import log_folder
from hotpool_agent.pods.pod_watch import PodServices
from hotpool_agent.probes.prober import Prober
from hotpool_agent.reporting.commands import new_commands
from hotpool_agent.reporting.report_builder import AgentInfo, ReportContent, build
from hotpool_agent.services import events, orphans
from hotpool_agent.services.controller import ServiceContext, ServiceController, launch_digest
from hotpool_agent.services.process import Process, StuckError
from hotpool_agent.services.start_queue import StartQueue
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StateStore, StoredServiceState

Verb = Literal["start", "stop", "restart"]
_GOAL: Final[dict[Verb, ServiceState]] = {"start": "Running", "stop": "Stopped", "restart": "Running"}
_EVENT: Final[dict[Verb, events.Event]] = {"start": events.Start(), "stop": events.Stop(), "restart": events.Restart()}
_LOG: Final = structlog.get_logger(__name__)
_OBSERVED: Final = "observed only; Kubernetes starts and stops it, by kubectl scale or kubectl delete pod"
FIRST_PROBE_SECONDS: Final = 5.0
_DISK_SECONDS: Final = 5.0


class CommandError(Exception):
    """A command that could not be carried out; the message says why."""


@dataclass(frozen=True, slots=True)
class ReportingPort:
    """How the node reaches what reports it. Set before the services start."""

    changed: Callable[[], None]
    withdrawn: Callable[[str], Awaitable[None]]


class ServiceManager:
    """The services of a catalogue, and those that are pods. `base` is the catalogue's folder."""

    def __init__(
        self,
        catalogue: Catalogue,
        base: Path,
        facts: AgentInfo,
        store: StateStore,
        settings: Settings,
        *,
        pods: PodServices,
    ) -> None:
        self.services: dict[str, ServiceController] = {}
        self.leaving = False
        self.catalogue = catalogue
        self._base = base
        self._info = facts
        self._store = store
        self._settings = settings
        self._pods = pods
        self._context: ServiceContext | None = None
        self._intents: tuple[ServiceIntent, ...] = ()
        self._endings: set[asyncio.Task[None]] = set()

    def content(self) -> ReportContent:
        """The report of this moment."""
        _, refused = self._pods.services(self.services.keys())
        return build(self.catalogue, self.snapshots(), self._info, leaving=self.leaving, refused=len(refused))

    def snapshots(self) -> list[ServiceStatus]:
        """All services as they are now: those of the catalogue, then pods."""
        pods, _ = self._pods.services(self.services.keys())
        asked_for = {entry.id for entry in self._intents}
        return [
            *(service.status() for service in self.services.values()),
            *(_dropped_services(pod) if pod.spec.id in asked_for else pod for pod in pods),
        ]

    def pods_problem(self) -> str | None:
        """What of the pods is not heard, or not reported, for people."""
        if not self._pods.watches:
            return None
        _, refused = self._pods.services(self.services.keys())
        left_out = [f"pod {pod}: the report has no room for it" for pod in self.content().dropped]
        return self._pods.problem([*refused, *left_out])

    async def start(self, session: aiohttp.ClientSession, links: ReportingPort) -> None:
        """Adopt what an earlier agent left, then start what is wished for, in the catalogue's order.

        Returns when everything that exists already was looked at, or after 5 s.
        """
        folder = self._store.folder
        log_folder(folder).mkdir(mode=0o700, exist_ok=True)
        self._context = ServiceContext(
            settings=self._settings,
            folder=folder,
            base=self._base,
            session=session,
            prober=Prober(session, self._base),
            changed=links.changed,
            remember=self._store.save,
            withdrawn=links.withdrawn,
            start_queue=StartQueue(),
        )
        specs = {spec.id: spec for spec in self.catalogue.services}
        left = orphans.find(folder, self._store.state, {name: spec.port for name, spec in specs.items()})
        for name in self._store.state.services.keys() - specs.keys():
            del self._store.state.services[name]
        for spec in specs.values():
            self._add(spec, self._context)
        # First what was left, because one that loads still has the turn that others will ask for.
        for name, service in sorted(self.services.items(), key=lambda item: item[0] not in left.adoptable):
            service.begin(left.adoptable.pop(name, None) if service.spec.run else None)
        for name, process in (*left.unclaimed, *left.adoptable.items()):
            self._end_in_background(name, process)
        self._store.save()
        # The identity must be on disk before the first report bears it.
        await self._store.flush_within(_DISK_SECONDS)
        await self._first_look()

    async def reload(self, catalogue: Catalogue) -> str:
        """Make the catalogue the node's: what it has no more is stopped, what is new or run otherwise starts (A10).

        Returns a sentence for people, when what had to stop has stopped. One at a time, and not during `start`.
        """
        old = {name: service.spec for name, service in self.services.items()}
        new = {spec.id: spec for spec in catalogue.services}
        removed = [name for name in old if name not in new]
        replaced = [name for name in old if name in new and launch_digest(old[name]) != launch_digest(new[name])]
        revised = [name for name in old if name in new and name not in replaced and old[name] != new[name]]
        self.catalogue = catalogue
        for name in revised:
            self.services[name].revise(new[name])
        self._changed()
        await asyncio.gather(*(self._remove(name) for name in (*removed, *replaced)))
        for name in removed:
            del self._store.state.services[name]
        self._arrange(new)
        counts = (len(new.keys() - old.keys()), len(removed), len(replaced), len(revised))
        return "added {}, removed {}, replaced {}, revised {}".format(*counts)

    async def command(self, verb: Verb, identifier: str, *, wait: bool) -> str:
        """Start, stop or restart a service for a user: remember the wish, act, and (`wait`) return when it is so.

        Returns a sentence for people; a repetition is a success. Raises CommandError.
        """
        service = self._find(identifier)
        repeated = service.machine.state == _GOAL[verb] and verb != "restart"
        self._set_desired(service, _GOAL[verb], "local")
        service.handle(_EVENT[verb])
        # The wish is safe on disk before anybody is told that it holds.
        if not await self._store.flush_within(_DISK_SECONDS):
            raise CommandError(f"{identifier}: done, but the wish cannot be written to disk; see the agent's log")
        if not wait:
            return f"{identifier}: {service.machine.state}"
        await service.wait_settled()
        return self._outcome(service, verb, repeated=repeated)

    def intend(self, intents: Iterable[ServiceIntent] | None) -> None:
        """Act on what people want through the cluster, where it is new. None: the object is not there."""
        if intents is not None:
            self._intents = tuple(intents)
            self._apply_commands()
            # Commands to pods are answered in the report.
            self._changed()

    def _apply_commands(self) -> None:
        obedient = {
            name: service
            for name, service in self.services.items()
            if not service.machine.observed and not service.machine.halted
        }
        acted = {name: service.remembered.acted for name, service in obedient.items()}
        for entry in new_commands(self._intents, acted):
            service = obedient[entry.id]
            service.remembered.acted = (entry.desired, entry.request_id)
            self._set_desired(service, entry.desired, "cluster")
            self._store.save()
            service.handle(events.Start() if entry.desired == "Running" else events.Stop())
            self._changed()

    def shut_down(self) -> None:
        """Begin the shut-down: the next report says `leaving`, all services stop, wishes stay as they are."""
        self.leaving = True
        for service in self.services.values():
            service.handle(events.Halt())
        self._changed()

    async def settle(self) -> None:
        """Return when nothing is under way in any service."""
        await asyncio.gather(*(service.wait_settled() for service in self.services.values()), *self._endings)

    async def close(self) -> None:
        """End all tasks; processes are left alone."""
        for task in self._endings:
            task.cancel()
        await asyncio.gather(*(service.close() for service in self.services.values()))
        await asyncio.gather(*self._endings, return_exceptions=True)
        if self._context:
            await self._context.prober.close()

    def _changed(self) -> None:
        if self._context:
            self._context.changed()

    def _add(self, spec: ServiceSpec, around: ServiceContext) -> None:
        remembered = self._store.state.services.setdefault(spec.id, StoredServiceState())
        self.services[spec.id] = ServiceController(spec, remembered, around)

    async def _remove(self, identifier: str) -> None:
        service = self.services[identifier]
        service.handle(events.Halt())
        await service.wait_settled()
        if service.machine.stuck:
            _LOG.error("removed, but not ended", id=identifier, error=service.machine.last_error)
        await service.close()
        del self.services[identifier]

    def _arrange(self, specs: dict[str, ServiceSpec]) -> None:
        """Add what is missing, in the order of the catalogue, and start it."""
        if self._context is None or self.leaving:
            return
        missing = [spec for spec in specs.values() if spec.id not in self.services]
        for spec in missing:
            self._add(spec, self._context)
        self.services = {name: self.services[name] for name in specs}
        for spec in missing:
            self.services[spec.id].begin(None)
        self._store.save()
        self._apply_commands()
        self._changed()

    def _find(self, identifier: str) -> ServiceController:
        service = self.services.get(identifier)
        if service is None:
            known = {snapshot.spec.id: snapshot.pod for snapshot in self.snapshots()}
            if pod := known.get(identifier):
                raise CommandError(f"{identifier} is pod {pod}: {_OBSERVED}")
            raise CommandError(f"{identifier}: no such service; there are: {', '.join(known) or 'none'}")
        if service.machine.observed:
            raise CommandError(f"{identifier} is observed only: something else starts and stops it")
        if self.leaving:
            raise CommandError("the agent is shutting down")
        if service.machine.halted:
            raise CommandError(f"{identifier} is being removed or replaced, as the catalogue says")
        return service

    def _set_desired(self, service: ServiceController, desired: str, by: str) -> None:
        remembered = service.remembered
        if (remembered.desired, remembered.desired_by) != (desired, by):
            remembered.desired, remembered.desired_by = desired, by
            self._store.save()
            self._changed()

    def _outcome(self, service: ServiceController, verb: Verb, *, repeated: bool) -> str:
        state, error, identifier = service.machine.state, service.machine.last_error, service.spec.id
        if state == _GOAL[verb]:
            return f"{identifier}: {state}{' already' if repeated else ''}"
        if state == "Failed":
            raise CommandError(f"{identifier}: {error}")
        raise CommandError(f"{identifier}: {state}, because of a later command")

    def _end_in_background(self, identifier: str, process: Process) -> None:
        async def end() -> None:
            _LOG.info("ending what an earlier agent left", id=identifier, pid=process.pid)
            try:
                await process.end(self._settings.stop_seconds)
            except StuckError as error:
                _LOG.error("not ended", id=identifier, error=str(error))

        task = asyncio.create_task(end())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _first_look(self) -> None:
        try:
            async with asyncio.timeout(FIRST_PROBE_SECONDS):
                for service in self.services.values():
                    await service.notifier.wait_for(lambda service=service: service.probed)  # type: ignore[misc]
        except TimeoutError:
            _LOG.warning("reporting before everything that exists was looked at")


def _dropped_services(pod: ServiceStatus) -> ServiceStatus:
    """A pod to which people gave a command through the cluster."""
    ignored = f"the command in spec.services is ignored: a pod is {_OBSERVED}"
    return replace(pod, last_error="; ".join(filter(None, (pod.last_error, ignored))))
