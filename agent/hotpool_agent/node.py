"""All services of one node, the wishes about them, and the report of the moment (behaviour A2, A8, A9, B10).

Owned by the wiring; `control` gives it commands, `reporter` reads its report. Must not know how reports travel.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import aiohttp
import structlog

from hotpool.api.capability import ServiceState
from hotpool_agent import machine as m
from hotpool_agent.catalogue import Catalogue
from hotpool_agent.observer import Observer
from hotpool_agent.report import Content, Facts, build
from hotpool_agent.service import Service, Surroundings
from hotpool_agent.settings import Settings
from hotpool_agent.store import Remembered, Store
from hotpool_agent.supervise import Process, StuckError

Verb = Literal["start", "stop"]
_GOAL: Final[dict[Verb, ServiceState]] = {"start": "Running", "stop": "Stopped"}
_LOG: Final = structlog.get_logger(__name__)
_FIRST_LOOK_SECONDS: Final = 5.0
_DISK_SECONDS: Final = 5.0


class CommandError(Exception):
    """A command that could not be carried out; the message says why."""


@dataclass(frozen=True, slots=True)
class Links:
    """How the node reaches what reports it. Set before the services start."""

    changed: Callable[[], None]
    withdrawn: Callable[[str], Awaitable[None]]


class Node:
    """The services of a catalogue. `base` is the catalogue's folder."""

    def __init__(self, catalogue: Catalogue, base: Path, facts: Facts, store: Store, settings: Settings) -> None:
        self.services: dict[str, Service] = {}
        self.leaving = False
        self._catalogue = catalogue
        self._base = base
        self._facts = facts
        self._store = store
        self._settings = settings
        self._changed: Callable[[], None] = lambda: None
        self._observer: Observer | None = None

    def content(self) -> Content:
        """The report of this moment."""
        snapshots = [service.snapshot() for service in self.services.values()]
        return build(self._catalogue, snapshots, self._facts, leaving=self.leaving)

    async def start(self, session: aiohttp.ClientSession, links: Links) -> None:
        """End what an earlier agent left, then start what is wished for, in the catalogue's order.

        Returns when every observed service was looked at, or after 5 s.
        """
        self._changed = links.changed
        await self._take_over_leftovers()
        logs = self._store.folder / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        self._observer = Observer(session, self._base)
        around = Surroundings(
            settings=self._settings,
            logs=logs,
            base=self._base,
            session=session,
            observer=self._observer,
            changed=links.changed,
            remember=self._store.save,
            withdrawn=links.withdrawn,
        )
        for spec in self._catalogue.services:
            if spec.live or spec.heavy:
                _LOG.warning("`live` and `heavy` are not acted on in this version", id=spec.id)
            remembered = self._store.state.services.setdefault(spec.id, Remembered())
            self.services[spec.id] = Service(spec, remembered, around)
        for service in self.services.values():
            wish = service.remembered.desired
            if wish == "Running" or (wish is None and service.spec.auto_start):
                service.handle(m.Start())
        await self._first_look()

    async def command(self, verb: Verb, identifier: str, *, wait: bool) -> str:
        """Start or stop a service for a user: remember the wish, act, and (`wait`) return when it is so.

        Returns a sentence for people; a repetition is a success. Raises CommandError.
        """
        service = self._find(identifier)
        repeated = service.machine.state == _GOAL[verb]
        self._wish(service, _GOAL[verb])
        service.handle(m.Start() if verb == "start" else m.Stop())
        # The wish is safe on disk before anybody is told that it holds.
        if not await self._store.flush_within(_DISK_SECONDS):
            raise CommandError(f"{identifier}: done, but the wish cannot be written to disk; see the agent's log")
        if not wait:
            return f"{identifier}: {service.machine.state}"
        await service.settle()
        return self._outcome(service, verb, repeated=repeated)

    def halt(self) -> None:
        """Begin the shut-down: the next report says `leaving`, all services stop, wishes stay as they are."""
        self.leaving = True
        for service in self.services.values():
            service.handle(m.Halt())
        self._changed()

    async def settle(self) -> None:
        """Return when nothing is under way in any service."""
        await asyncio.gather(*(service.settle() for service in self.services.values()))

    async def close(self) -> None:
        """End all tasks; processes are left alone."""
        await asyncio.gather(*(service.close() for service in self.services.values()))
        if self._observer:
            await self._observer.close()

    def _find(self, identifier: str) -> Service:
        service = self.services.get(identifier)
        if service is None:
            raise CommandError(f"{identifier}: no such service; there are: {', '.join(self.services) or 'none'}")
        if service.machine.observed:
            raise CommandError(f"{identifier} is observed only: something else starts and stops it")
        if self.leaving:
            raise CommandError("the agent is shutting down")
        return service

    def _wish(self, service: Service, desired: str) -> None:
        remembered = service.remembered
        if (remembered.desired, remembered.desired_by) != (desired, "local"):
            remembered.desired, remembered.desired_by = desired, "local"
            self._store.save()
            self._changed()

    def _outcome(self, service: Service, verb: Verb, *, repeated: bool) -> str:
        state, error, identifier = service.machine.state, service.machine.last_error, service.spec.id
        if state == _GOAL[verb]:
            return f"{identifier}: {state}{' already' if repeated else ''}"
        if state == "Failed":
            raise CommandError(f"{identifier}: {error}")
        raise CommandError(f"{identifier}: {state}, because of a later command")

    async def _take_over_leftovers(self) -> None:
        """What an earlier agent started and did not end is ended here; here it will be adopted (behaviour A11)."""
        await asyncio.gather(*(self._end_leftover(*item) for item in self._store.state.services.items()))
        known = {spec.id for spec in self._catalogue.services}
        for identifier in [name for name in self._store.state.services if name not in known]:
            del self._store.state.services[identifier]
        self._store.state.interval = self._settings.interval
        self._store.save()
        # The identity must be on disk before the first report bears it.
        await self._store.flush_within(_DISK_SECONDS)

    async def _end_leftover(self, identifier: str, remembered: Remembered) -> None:
        if remembered.pid is None or remembered.started is None:
            return
        port = next((spec.port for spec in self._catalogue.services if spec.id == identifier), None)
        process = Process.find(remembered.pid, remembered.started, port)
        remembered.pid = remembered.started = None
        if process is None:
            return
        _LOG.info("ending what an earlier agent left", id=identifier, pid=process.pid)
        try:
            await process.end(self._settings.stop_seconds)
        except StuckError as error:
            _LOG.error("not ended", id=identifier, error=str(error))

    async def _first_look(self) -> None:
        try:
            async with asyncio.timeout(_FIRST_LOOK_SECONDS):
                for service in self.services.values():
                    await service.news.until(lambda service=service: service.looked)  # type: ignore[misc]
        except TimeoutError:
            _LOG.warning("reporting before every observed service was looked at")
