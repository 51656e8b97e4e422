"""Performs what the state machine of one service decides: processes, probes, waiting (behaviour A3-A9, A11).

Owned by `node`. All I/O of one service starts here; each action answers with an event. Must not decide: that is
`machine`.
"""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog

from hotpool.api.meta import timestamp
from hotpool_agent import machine as m
from hotpool_agent import probe
from hotpool_agent.catalogue import HttpCheck, Observe, Run, ServiceSpec
from hotpool_agent.damping import Damping, retry_pause
from hotpool_agent.machine import Action, Event, Machine
from hotpool_agent.pulse import Pulse
from hotpool_agent.settings import Settings
from hotpool_agent.snapshot import Snapshot
from hotpool_agent.store import Remembered
from hotpool_agent.supervise import Command, LaunchError, Process, StuckError, mark
from hotpool_agent.turns import Turns

_LOG: Final = structlog.get_logger(__name__)
_FIRST_PAUSE: Final = 0.05
"""Seconds between the first two probes of a start; doubled up to the probe's period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all services of a node share."""

    settings: Settings
    folder: Path
    """The agent's state folder."""
    base: Path
    """Folder that `workingDir` is relative to."""
    session: aiohttp.ClientSession
    changed: Callable[[], None]
    """Something that the report may show has changed."""
    remember: Callable[[], None]
    """What is remembered of the service has changed."""
    withdrawn: Callable[[str], Awaitable[None]]
    """Returns when no accepted report offers the service."""
    turns: Turns
    """Of heavy services to load."""


class Service:
    """One service: its machine, and the tasks that serve it. `remembered` is what the state file holds of it."""

    def __init__(self, spec: ServiceSpec, remembered: Remembered, around: Surroundings) -> None:
        self.spec = spec
        self.remembered = remembered
        wish = remembered.desired
        wanted = spec.run is not None and (wish == "Running" or (wish is None and spec.auto_start))
        self.machine = Machine(observed=spec.observe is not None, heavy=spec.heavy, wanted=wanted)
        self.since = timestamp()
        self.looked = spec.observe is None
        """Whether what exists already, observed or adopted, was probed at least once."""
        self.news = Pulse()
        self._around = around
        self._process: Process | None = None
        self._events: deque[Event] = deque()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures = 0
        """In a row, without a long time of Running between them."""
        self._running_since: float | None = None
        self._damping = self._remembered_damping()
        if spec.observe is not None:
            self._spawn("probe", self._observe(spec.observe))

    def begin(self, left: Process | None) -> None:
        """Adopt what an earlier agent left; else start if that is wished for."""
        if left is None:
            if self.machine.wanted:
                self.handle(m.Start())
            return
        self._process = left
        fitness = self._fitness()
        self.looked = fitness is not m.Fitness.WAS_READY or not self.machine.wanted
        self._spawn("process", self._exit(left))
        if self.spec.heavy and fitness is m.Fitness.WAS_LOADING:
            self._around.turns.take(self.spec.id)
        self.handle(m.Adopted(left.pid, fitness))

    def revise(self, spec: ServiceSpec) -> None:
        """Take over a catalogue entry that asks for no new process (`recipe` is the same)."""
        self.spec = spec
        self.machine = replace(self.machine, heavy=spec.heavy)

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
            restarts=now.restarts,
            request_id=self.remembered.acted[1] if self.remembered.acted else None,
            flapping=self._damping.suppresses(_now()),
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
                self._entered(before)
            # First the report, then the work: a withdrawal must not wait for it.
            self._around.changed()
            self.news.beat()
        for action in actions:
            self._perform(action)
        if not m.loads(self.machine):
            self._around.turns.leave(self.spec.id)

    def _entered(self, before: Machine) -> None:
        state = self.machine.state
        adopted = state == "Running" and not self.looked and not self.machine.observed
        self.since = (self.remembered.since if adopted else None) or timestamp()
        _LOG.info("service", id=self.spec.id, state=state, error=self.machine.last_error)
        if state == "Running":
            self._running_since = self._running_since or _now()
            self._remember(since=self.since)
        elif self._running_since is not None and state != "Stopping":
            self._left_running(_now() - self._running_since, flapped=before.state == "Running")
        if state == "Stopped":
            self._failures = 0
        self.looked = self.looked or (not self.machine.observed and state != "Starting")

    def _left_running(self, lasted: float, *, flapped: bool) -> None:
        self._running_since = None
        if lasted > self._around.settings.restart_limit_seconds:
            self._failures = 0
        if flapped:
            self._damping = self._damping.flapped(_now())
            self._remember(penalty=self._damping.penalty, penalty_at=time.time(), suppressed=self._damping.suppressed)
            if self._damping.suppressed:
                self._spawn("damping", self._damp())

    def _perform(self, action: Action) -> None:  # noqa: C901 - one line for each action.
        match action:
            case Action.QUEUE:
                self._around.turns.ask(self.spec.id, lambda: self.handle(m.Turn()))
            case Action.LAUNCH:
                self._spawn("process", self._run())
            case Action.PROBE:
                self._spawn("probe", self._start_probe())
            case Action.RECOGNISE:
                self._spawn("probe", self._recognise())
            case Action.WATCH:
                self._spawn("probe", self._watch())
            case Action.UNPROBE:
                self._cancel("probe")
            case Action.RETRY:
                self._spawn("retry", self._retry())
            case Action.UNRETRY:
                self._failures = 0
                self._cancel("retry")
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
        self._remember(pid=process.pid, started=process.started, recipe=recipe(self.spec), since=None)
        self.handle(m.Launched(process.pid))
        await self._exit(process)

    async def _exit(self, process: Process) -> None:
        self.handle(m.Exited(await process.exited()))

    async def _start_probe(self) -> None:
        ready, pause, last = self.spec.ready, _FIRST_PAUSE, "no probe finished"
        try:
            async with asyncio.timeout(ready.start_seconds):
                while not (answer := await self._ask(ready.http, ready.timeout_seconds)).ok:
                    last = answer.detail
                    await asyncio.sleep(min(pause, ready.period_seconds))
                    pause *= 2
        except TimeoutError:
            self.handle(m.StartTimedOut(f"not ready after {ready.start_seconds:g} s: {last}"))
            return
        self.handle(m.Ready())

    async def _recognise(self) -> None:
        answer = await self._ask(self.spec.ready.http, self.spec.ready.timeout_seconds)
        if answer.ok:
            self.handle(m.Ready())
            return
        self.looked = True
        self.handle(m.Unrecognised(f"not adopted: {answer.detail}"))

    async def _watch(self) -> None:
        failures = 0
        while failures < self.spec.live.failures:
            await asyncio.sleep(self.spec.live.period_seconds)
            answer = await self._ask(self.spec.live.http or self.spec.ready.http, self.spec.live.timeout_seconds)
            failures = 0 if answer.ok else failures + 1
        self.handle(m.Hung(f"{failures} probes in a row failed: {answer.detail}"))

    async def _ask(self, http: HttpCheck | None, seconds: float) -> probe.Answer:
        port = self.spec.port
        if http:
            return await probe.http(self._around.session, http, port or 0, seconds)
        if port:
            return await probe.tcp(port, seconds)
        return probe.Answer(ok=True)

    async def _retry(self) -> None:
        self._failures += 1
        settings = self._around.settings
        await asyncio.sleep(retry_pause(self._failures, settings.restart_seconds, settings.restart_limit_seconds))
        self.handle(m.Retry())

    async def _damp(self) -> None:
        await asyncio.sleep(self._damping.over_at() - _now())
        self._around.changed()

    async def _observe(self, how: Observe) -> None:
        if how.http is None:
            return
        while True:
            answer = await probe.http(self._around.session, how.http, self.spec.port or 0, how.timeout_seconds)
            self.handle(m.Ready() if answer.ok else m.Unready(answer.detail, answer.absent))
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
        self._remember(pid=None, started=None, recipe=None, since=None)
        self.handle(m.Gone())

    def _remember(self, **what: Any) -> None:
        for name, value in what.items():
            setattr(self.remembered, name, value)
        self._around.remember()

    def _remembered_damping(self) -> Damping:
        kept = self.remembered
        passed = max(0.0, time.time() - kept.penalty_at)
        damping = Damping(self._around.settings.flap_half_life_seconds, kept.penalty, _now() - passed, kept.suppressed)
        if damping.suppresses(_now()):
            self._spawn("damping", self._damp())
        return damping

    def _fitness(self) -> m.Fitness:
        if self.remembered.recipe not in {None, recipe(self.spec)}:
            return m.Fitness.UNFIT
        return m.Fitness.WAS_READY if self.remembered.since else m.Fitness.WAS_LOADING

    def _command(self) -> Command:
        run = self.spec.run or Run(command=("false",))
        return Command(
            argv=run.command,
            env=run.env,
            working_dir=self._around.base / run.working_dir,
            log=self._around.folder / "logs" / f"{self.spec.id}.log",
            port=self.spec.port,
            mark=mark(self._around.folder, self.spec.id),
        )


def recipe(spec: ServiceSpec) -> str:
    """Digest of what a running process cannot follow when it changes: how it is run or seen, and its port."""
    return hashlib.sha256(spec.model_dump_json(include={"run", "observe", "port"}).encode()).hexdigest()[:16]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _LOG.error("internal error", task=task.get_name(), exc_info=error)
