"""Controller of one service: processes, probes and delays (requirements A3 to A9, A11).

All I/O of one service starts here, and the outcome of each action is an event. Must not decide: `state_machine` does.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import structlog

from hotpool.api.meta import timestamp
from hotpool_agent.catalogue.model import Observe, Run, ServiceSpec
from hotpool_agent.notifier import Notifier
from hotpool_agent.paths import log_file
from hotpool_agent.services import events, probing, task_failures
from hotpool_agent.services import state_machine as m
from hotpool_agent.services.context import ServiceContext
from hotpool_agent.services.events import Event
from hotpool_agent.services.launch import Command, Launch, LaunchError, LaunchHungError, StuckError
from hotpool_agent.services.members import read_all
from hotpool_agent.services.output_tail import last_lines, with_output
from hotpool_agent.services.process import Process
from hotpool_agent.services.process_table import ProcessTable, owner, ownership_tag
from hotpool_agent.services.state_machine import Action, Machine
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.services.stored_failure import restored, store_failure
from hotpool_agent.services.stored_flaps import StoredFlaps
from hotpool_agent.services.usage import ServiceUsage
from hotpool_agent.state_store import StoredServiceState

_LOG: Final = structlog.get_logger(__name__)
_REPEAT_SECONDS: Final = 1.0
"""Pause before a task that raised an unexpected exception is repeated."""
_CANCELLED: Final = {Action.STOP_PROBE: "probe", Action.CANCEL_RETRY: "retry", Action.CANCEL_WITHDRAWAL: "withdraw"}
"""Action → name of the task that it cancels."""


class ServiceController:
    """One service: its state machine, and its tasks by name. `stored`: its entry in the state file."""

    def __init__(self, spec: ServiceSpec, stored: StoredServiceState, context: ServiceContext) -> None:
        self.spec = spec
        self.stored = stored
        self.follow_auto_start()
        desired = stored.desired
        should_run = spec.run is not None and (desired == "Running" or (desired is None and spec.auto_start))
        machine = Machine(observed=spec.observe is not None, heavy=spec.heavy, should_run=should_run)
        restarts, error, self._output = restored(machine, stored)
        self.machine = replace(machine, restarts=restarts, last_error=error)
        self.since = timestamp()
        self.probed = spec.observe is None
        """True once an observed or adopted service was probed, or if no first probe is needed."""
        self.notifier = Notifier()
        self._context = context
        self._process: Process | Launch | None = None
        self._answer = ""
        """Response of the service to the probe of the last failure, as text: a body or output."""
        self._output_start = 0
        """Size of the log file when the process was started."""
        self._events: deque[Event] = deque()
        self._tasks: dict[str, asyncio.Task[Event | None]] = {}
        self._usage = ServiceUsage(context.prober, context.node_drain, context.reporting.changed)
        self._flaps = StoredFlaps(stored, context.settings)
        self._schedule_reuse()
        if spec.observe is not None:
            self._spawn("probe", self._observe(spec.observe))

    def adopt_or_start(self, orphan: Process | None, *, fit: bool = True) -> None:
        """Adopt the process that an earlier agent left, else start one if the desired state is Running.

        `fit`: False for a process that must be ended first.
        """
        if orphan is None:
            if self.machine.should_run:
                self.handle(events.Resume())
            return
        self._process = orphan
        adoption_state = self._adoption_state() if fit else events.AdoptionState.UNFIT
        # A process that was found by its ownership tag is not in the state file yet.
        self._store(pid=orphan.pid, started=orphan.started)
        self.probed = adoption_state is events.AdoptionState.UNFIT or not self.machine.should_run
        self._spawn("process", self._wait_exit(orphan))
        if self.spec.heavy and adoption_state is events.AdoptionState.WAS_LOADING:
            self._context.start_queue.hold(self.spec.id)
        self.handle(events.Adopted(orphan.pid, adoption_state))

    def follow_auto_start(self) -> bool:
        """Let a changed `autoStart` of the catalogue replace an older command. Return True if it says start now."""
        before, self.stored.auto_start = self.stored.auto_start, self.spec.auto_start
        if before is not False or not self.spec.auto_start or self.spec.run is None:
            return False
        self.stored.desired = self.stored.desired_by = None
        return True

    def revise(self, spec: ServiceSpec) -> None:
        """Apply a changed catalogue entry that needs no new process (`launch_digest` is the same)."""
        before, self.spec = self.spec, spec
        self._follow_endpoint()
        self.follow_drain()
        if (spec.heavy, spec.ready, spec.live) != (before.heavy, before.ready, before.live):
            self.handle(events.Revised(spec.heavy))

    def handle(self, event: Event) -> None:
        """Pass an event to the state machine and perform its actions; safe to call from within an action."""
        self._events.append(event)
        if len(self._events) > 1:
            return
        while self._events:
            self._step(self._events[0])
            self._events.popleft()

    def status(self) -> ServiceStatus:
        """Return the current status."""
        now, supervised = self.machine, not self.machine.observed
        endpoint, endpoint_reason = self._context.endpoints.endpoint(self.spec, now.state)
        return ServiceStatus(
            spec=self.spec,
            state=now.state,
            since=self.since,
            pid=now.pid,
            last_error=with_output(
                f"{now.last_error}: {self._answer}" if self._answer else now.last_error, self._output
            ),
            stable_error=now.last_error,
            last_output=self._output if now.last_error else (),
            desired=("Running" if now.should_run else "Stopped") if supervised else None,
            desired_by=(self.stored.desired_by or "catalogue") if supervised else None,
            restarts=now.restarts,
            request_id=self.stored.acted[1] if self.stored.acted else None,
            flapping=self._flaps.seconds_left() is not None,
            endpoint=endpoint,
            endpoint_reason=endpoint_reason,
            in_flight=self._usage.number,
        )

    def follow_drain(self) -> None:
        """Read the service's number of requests in progress while it or its node drains (requirement B5)."""
        self._usage.follow(self.spec, self.machine.state)

    def remember(self, table: ProcessTable) -> None:
        """Look for new members among all processes, while their descent can be seen."""
        if isinstance(self._process, Process):
            self._process.members.update(table)

    async def wait_settled(self) -> None:
        """Return when no operation runs."""
        await self.notifier.wait_for(lambda: m.is_settled(self.machine))

    async def close(self) -> Process | None:
        """Cancel the tasks; processes keep running. Return the process that has not ended."""
        self._context.endpoints.leave(self.spec.id)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._usage.close(), return_exceptions=True)
        return self._process if isinstance(self._process, Process) else None

    def _step(self, event: Event) -> None:
        before = self.machine
        self.machine, actions = m.step(before, event)
        if self.machine != before:
            if self.machine.state != before.state:
                self._guard(lambda: self._on_state_change(before))
                self._guard(self._follow_endpoint)
                self._guard(self.follow_drain)
            self._guard(self._store_failure)
            # Notify the reporter before the actions: a withdrawal must not wait for them.
            self._guard(self._context.reporting.changed)
            self.notifier.notify()
        for action in actions:
            self._perform(action)
        if not m.is_loading(self.machine):
            self._context.start_queue.release(self.spec.id)

    def _on_state_change(self, before: Machine) -> None:
        state = self.machine.state
        adopted = state == "Running" and not self.probed and not self.machine.observed
        self.since = (self.stored.since if adopted else None) or timestamp()
        unconfirmed = adopted and before.state == "Stopped"
        self.probed = self.probed or not (self.machine.observed or unconfirmed or state == "Starting")
        if state == "Running":
            self._flaps.started()
            self._store(since=self.since)
            self._spawn("members", self._search_members())
        elif state != "Stopping":
            self._on_outage(before)
        if state == "Stopped":
            self._flaps.reset_failures()
        _LOG.info("service state changed", id=self.spec.id, state=state, error=self.machine.last_error)

    def _follow_endpoint(self) -> None:
        self._context.endpoints.follow(self.spec, self.machine.state)

    def _on_outage(self, before: Machine) -> None:
        self._flaps.ended(before, self.machine)
        # A service that failed is not Running for the next agent, even if its process still lives.
        self._store(since=None)
        self._schedule_reuse()
        if self.machine.state == "Failed" and before.state != "Starting" and not self.machine.observed:
            self._spawn("output", self._read_output())

    def _guard(self, work: Callable[[], None]) -> None:
        """Do work of which a failure must not keep the service from going on."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - as said
            with suppress(Exception):
                _LOG.error("internal error", id=self.spec.id, exc_info=error)

    def _perform(self, action: Action) -> None:
        stop_seconds = self._context.settings.stop_seconds
        works: dict[Action, tuple[str, Callable[[], Coroutine[Any, Any, Event]]]] = {
            Action.LAUNCH: ("process", self._launch),
            Action.PROBE: ("probe", self._probe_start),
            Action.PROBE_ADOPTED: ("probe", self._probe_adopted),
            Action.PROBE_LIVENESS: ("probe", lambda: probing.until_hung(self._context.prober, self.spec)),
            Action.RETRY: ("retry", self._retry),
            Action.WITHDRAW: ("withdraw", self._withdraw),
            Action.TERMINATE: ("end", lambda: self._terminate(stop_seconds)),
            Action.KILL: ("end", lambda: self._terminate(0)),
        }
        if action is Action.QUEUE:
            self._context.start_queue.acquire(self.spec.id, lambda: self.handle(events.StartAllowed()))
        elif action in works:
            name, work = works[action]
            self._spawn(name, work())
        else:
            if action is Action.CANCEL_RETRY:
                self._flaps.reset_failures()
            self._cancel(_CANCELLED[action])

    def _spawn(self, name: str, work: Coroutine[Any, Any, Event | None]) -> None:
        """Run a task, replacing one of the same name. Its result is passed to the state machine as an event."""
        self._cancel(name)
        task = self._tasks[name] = asyncio.create_task(work, name=f"{self.spec.id}: {name}")
        task.add_done_callback(lambda _: self._on_task_done(name, task))

    def _on_task_done(self, name: str, task: asyncio.Task[Event | None]) -> None:
        if task.cancelled() or self._tasks.get(name) is not task:
            return
        if error := task.exception():
            self._on_task_failure(name, error)
            with suppress(Exception):
                _LOG.error("internal error", task=task.get_name(), exc_info=error)
        elif event := task.result():
            self.handle(event)

    def _on_task_failure(self, name: str, error: BaseException) -> None:
        """Pass the failure of a task to the state machine, and repeat tasks that must not end."""
        if name == "process" and self._process and self.machine.phase is m.ProcessPhase.LAUNCHING:
            self.handle(events.Launched(self._process.pid))
        if event := task_failures.event_of(name, error, self.machine):
            self.handle(event)
        if name == "end":
            self._spawn("end", self._terminate_later())
        elif name == "probe" and (observe := self.spec.observe):
            self._mark_probed()
            self._spawn("probe", self._observe(observe, _REPEAT_SECONDS))

    def _cancel(self, name: str) -> None:
        if task := self._tasks.pop(name, None):
            task.cancel()

    async def _launch(self) -> Event:
        command, digest = self._command(), launch_digest(self.spec)
        try:
            process = await Process.launch(command)
        except LaunchError as error:
            self._output = ()
            return events.LaunchFailed(str(error))
        except LaunchHungError as error:
            self._output, self._process = (), error.launch
            return events.LaunchHung(str(error))
        self._process, self._output_start = process, process.output_start
        self._store(pid=process.pid, started=process.started, recipe=digest, since=None)
        self.handle(events.Launched(process.pid))
        return await self._wait_exit(process)

    async def _wait_exit(self, process: Process) -> Event:
        reason = await process.exited()
        # A service that is offered is withdrawn first.
        if self.machine.state == "Starting":
            await self._read_output()
        return events.Exited(reason)

    async def _read_output(self) -> None:
        self._output = await last_lines(log_file(self._context.store.folder, self.spec.id), self._output_start)
        self._guard(self._store_failure)
        self._guard(self._context.reporting.changed)

    async def _probe_start(self) -> Event:
        outcome = await probing.until_ready(self._context.prober, self.spec, self._mark_probed)
        if isinstance(outcome, events.StartTimedOut):
            await self._read_output()
        return outcome

    async def _probe_adopted(self) -> Event:
        outcome = await probing.probe_adopted(self._context.prober, self.spec, self._mark_probed)
        self._mark_probed()
        return outcome

    async def _search_members(self) -> None:
        with suppress(TimeoutError):
            self.remember(await read_all())

    async def _retry(self) -> Event:
        await asyncio.sleep(self._flaps.retry_pause())
        return events.Retry()

    def _schedule_reuse(self) -> None:
        """Schedule a new report for the moment at which a flapping service may be offered again."""
        if (seconds := self._flaps.seconds_left()) is not None:
            self._spawn("damping", self._wait_reuse(seconds))

    async def _wait_reuse(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._context.reporting.changed()

    async def _observe(self, observe: Observe, pause: float = 0.0) -> None:
        await asyncio.sleep(pause)
        # One failed probe alone does not prove that a service failed; without a success yet, each one is enough.
        failed = observe.failures
        while True:
            result = await self._context.prober.probe(observe, self.spec.port)
            failed += 1
            if result.ok:
                failed, self._answer = 0, ""
                self.handle(events.Ready(result.pid))
            elif result.absent or result.conclusive or failed >= observe.failures:
                failed, self._answer = observe.failures, result.volatile
                self.handle(events.Unready(result.detail, result.absent))
            self._mark_probed()
            await asyncio.sleep(observe.period_seconds)

    def _mark_probed(self) -> None:
        if not self.probed:
            self.probed = True
            self.notifier.notify()

    async def _withdraw(self) -> Event:
        try:
            async with asyncio.timeout(self._context.settings.announce_seconds):
                await self._context.reporting.wait_withdrawn(self.spec.id)
        except TimeoutError:
            _LOG.warning("stopping before the withdrawal was accepted (timeout)", id=self.spec.id)
        else:
            await asyncio.sleep(self.spec.pre_stop_seconds)
        if (timeout := self.spec.drain_timeout_seconds) and not await self._usage.wait_unused(timeout):
            _LOG.warning("stopping before the service was unused (timeout)", id=self.spec.id, timeout_seconds=timeout)
        return events.Withdrawn()

    async def _terminate(self, grace: float) -> Event:
        if process := self._process:
            try:
                await process.end(grace)
            except StuckError as error:
                self.handle(events.Stuck(str(error)))
                await process.free()
        self._process = None
        self._store(pid=None, started=None, recipe=None, since=None)
        return events.Gone()

    async def _terminate_later(self) -> Event:
        await asyncio.sleep(_REPEAT_SECONDS)
        return await self._terminate(0)

    def _store(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self.stored, name, value)
        self._context.store.save()

    def _store_failure(self) -> None:
        if store_failure(self.machine, self._output, self.stored):
            self._context.store.save()

    def _adoption_state(self) -> events.AdoptionState:
        if self.stored.recipe != launch_digest(self.spec):
            return events.AdoptionState.UNFIT
        return events.AdoptionState.WAS_READY if self.stored.since else events.AdoptionState.WAS_LOADING

    def _command(self) -> Command:
        run = self.spec.run or Run(command=("false",))
        return Command(
            argv=run.command,
            env=run.env,
            working_dir=self._context.base / run.working_dir,
            log=log_file(self._context.store.folder, self.spec.id),
            port=self.spec.port,
            ownership_tag=ownership_tag(owner(self._context.store.folder, self.spec.id), launch_digest(self.spec)),
        )


def launch_digest(spec: ServiceSpec) -> str:
    """Return the digest of the fields whose change needs a new process: `run`, `observe` and `port`."""
    return hashlib.sha256(spec.model_dump_json(include={"run", "observe", "port"}).encode()).hexdigest()[:16]
