"""Performs what the state machine of one service decides: processes, probes, waiting (behaviour A3-A5, A7, A9).

Owned by `node`. All I/O of one service starts here; each action answers with an event. Must not decide: that is
`machine`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog

from hotpool.api.meta import timestamp
from hotpool_agent import machine as m
from hotpool_agent import probe
from hotpool_agent.catalogue import Observe, Run, ServiceSpec
from hotpool_agent.machine import Action, Event, Machine
from hotpool_agent.observer import Observer
from hotpool_agent.pulse import Pulse
from hotpool_agent.settings import Settings
from hotpool_agent.snapshot import Snapshot
from hotpool_agent.store import Remembered
from hotpool_agent.streak import Streak
from hotpool_agent.supervise import Command, LaunchError, Process, StuckError

_LOG: Final = structlog.get_logger(__name__)
_FIRST_PAUSE: Final = 0.05
"""Seconds between the first two probes of a start; doubled up to the probe's period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all services of a node share."""

    settings: Settings
    logs: Path
    base: Path
    """Folder that `workingDir` is relative to."""
    session: aiohttp.ClientSession
    observer: Observer
    changed: Callable[[], None]
    """Something that the report may show has changed."""
    remember: Callable[[], None]
    """What is remembered of the service has changed."""
    withdrawn: Callable[[str], Awaitable[None]]
    """Returns when no accepted report offers the service."""


class Service:
    """One service: its machine, and the tasks that serve it. `remembered` is what the state file holds of it."""

    def __init__(self, spec: ServiceSpec, remembered: Remembered, around: Surroundings) -> None:
        self.spec = spec
        self.remembered = remembered
        self.machine = Machine(observed=spec.observe is not None)
        self.since = timestamp()
        self.looked = spec.observe is None
        """Whether an observed service was probed at least once."""
        self.news = Pulse()
        self._around = around
        self._process: Process | None = None
        self._events: deque[Event] = deque()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        if spec.observe is not None:
            self._spawn("probe", self._observe(spec.observe))

    def handle(self, event: Event) -> None:
        """Give the machine an event and do what it answers; safe to call from within an action."""
        self._events.append(event)
        if len(self._events) > 1:
            return
        while self._events:
            try:
                self._step(self._events[0])
            finally:
                self._events.popleft()

    def snapshot(self) -> Snapshot:
        """The service as it is now."""
        now, supervised = self.machine, not self.machine.observed
        return Snapshot(
            spec=self.spec,
            state=now.state,
            since=self.since,
            pid=now.pid,
            last_error=now.last_error,
            desired=("Running" if now.wanted else "Stopped") if supervised else None,
            desired_by=(self.remembered.desired_by or "catalogue") if supervised else None,
        )

    async def settle(self) -> None:
        """Return when nothing is under way."""
        await self.news.until(lambda: m.settled(self.machine))

    async def close(self) -> None:
        """End the tasks; processes are left alone."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _step(self, event: Event) -> None:
        before = self.machine
        self.machine, actions = m.step(before, event)
        if self.machine != before:
            if self.machine.state != before.state:
                self.since = timestamp()
                _LOG.info("service", id=self.spec.id, state=self.machine.state, error=self.machine.last_error)
            # First the report, then the work: a withdrawal must not wait for it.
            self._around.changed()
            self.news.beat()
        for action in actions:
            self._perform(action)

    def _perform(self, action: Action) -> None:
        match action:
            case Action.LAUNCH:
                self._spawn("process", self._run())
            case Action.PROBE:
                self._spawn("probe", self._start_probe())
            case Action.UNPROBE:
                self._cancel("probe")
            case Action.ANNOUNCE:
                self._spawn("announce", self._announce())
            case Action.UNANNOUNCE:
                self._cancel("announce")
            case Action.TERMINATE:
                self._spawn("end", self._end(self._around.settings.stop_seconds))
            case Action.KILL:
                self._spawn("end", self._end(0))

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._cancel(name)
        task = asyncio.create_task(work, name=f"{self.spec.id}: {name}")
        task.add_done_callback(_complain)
        self._tasks[name] = task

    def _cancel(self, name: str) -> None:
        if task := self._tasks.pop(name, None):
            task.cancel()

    async def _run(self) -> None:
        try:
            process = await Process.launch(self._command())
        except LaunchError as error:
            self.handle(m.LaunchFailed(str(error)))
            return
        self._process = process
        self._remember(process.pid, process.started)
        self.handle(m.Launched(process.pid))
        self.handle(m.Exited(await process.exited()))

    async def _start_probe(self) -> None:
        ready, pause, last = self.spec.ready, _FIRST_PAUSE, "no probe finished"
        try:
            async with asyncio.timeout(ready.start_seconds):
                while not (answer := await self._ask()).ok:
                    last = answer.detail
                    await asyncio.sleep(min(pause, ready.period_seconds))
                    pause *= 2
        except TimeoutError:
            self.handle(m.StartTimedOut(f"not ready after {ready.start_seconds:g} s: {last}"))
            return
        self.handle(m.Ready())

    async def _ask(self) -> probe.Answer:
        ready, port = self.spec.ready, self.spec.port
        if ready.http:
            return await probe.http(self._around.session, ready.http, port or 0, ready.timeout_seconds)
        if port:
            return await probe.tcp(port, ready.timeout_seconds)
        return probe.Answer(ok=True)

    async def _observe(self, how: Observe) -> None:
        streak = Streak.untried(how.failures)
        while True:
            answer = await self._around.observer.ask(how, self.spec.port)
            streak = streak.after(ok=answer.ok, proof=answer.absent)
            if answer.ok:
                self.handle(m.Ready(answer.pid))
            elif streak.broken:
                self.handle(m.Unready(answer.detail, answer.absent))
            if not self.looked:
                self.looked = True
                self.news.beat()
            await asyncio.sleep(how.period_seconds)

    async def _announce(self) -> None:
        try:
            async with asyncio.timeout(self._around.settings.announce_seconds):
                await self._around.withdrawn(self.spec.id)
        except TimeoutError:
            _LOG.warning("stopping without an accepted report", id=self.spec.id)
        else:
            await asyncio.sleep(self.spec.pre_stop_seconds)
        self.handle(m.Announced())

    async def _end(self, grace: float) -> None:
        if process := self._process:
            try:
                await process.end(grace)
            except StuckError as error:
                self.handle(m.Stuck(str(error)))
                await process.free()
        self._process = None
        self._remember(None, None)
        self.handle(m.Gone())

    def _remember(self, pid: int | None, started: int | None) -> None:
        self.remembered.pid, self.remembered.started = pid, started
        self._around.remember()

    def _command(self) -> Command:
        run = self.spec.run or Run(command=("false",))
        return Command(
            argv=run.command,
            env=run.env,
            working_dir=self._around.base / run.working_dir,
            log=self._around.logs / f"{self.spec.id}.log",
            port=self.spec.port,
        )


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _LOG.error("internal error", task=task.get_name(), exc_info=error)
