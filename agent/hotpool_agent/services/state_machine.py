"""State machine of one service, a pure function (machine, event) → (machine, actions) (requirements A3 to A9, A11).

Must not know time, processes or asyncio. One operation runs at a time: a command is recorded at once, and takes effect
when the current operation has ended.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from hotpool.api.capability import ServiceState
from hotpool_agent.services import events
from hotpool_agent.services.events import AdoptionState, Event


class ProcessPhase(Enum):
    """Phase of a supervised service's process."""

    NONE = auto()
    QUEUED = auto()
    """Waits in the start queue: heavy services load one at a time."""
    LAUNCHING = auto()
    ALIVE = auto()
    ENDING = auto()
    """The process, and all others of the service, are being ended; `Gone` follows."""


class Action(Enum):
    """Side effects that the machine requests. Each description names the events that report the outcome.

    No action leaves the start queue: a service that `is_loading` no more has left it.
    """

    QUEUE = auto()
    """Wait in the start queue: StartAllowed."""
    LAUNCH = auto()
    """Start the process: Launched, LaunchFailed or LaunchHung."""
    PROBE = auto()
    """Probe until the service is ready: Ready or StartTimedOut."""
    PROBE_ADOPTED = auto()
    """Probe an adopted process until a success or its failure threshold: Ready or AdoptionFailed."""
    PROBE_LIVENESS = auto()
    """Probe for as long as the service runs: Hung."""
    STOP_PROBE = auto()
    """Cancel PROBE, PROBE_ADOPTED or PROBE_LIVENESS."""
    RETRY = auto()
    """Wait for the back-off: Retry."""
    CANCEL_RETRY = auto()
    WITHDRAW = auto()
    """Wait until the report that withdraws the service is accepted: Withdrawn."""
    CANCEL_WITHDRAWAL = auto()
    TERMINATE = auto()
    """Send TERM, later KILL, to all processes of the service: Gone when none and no listener is left, else Stuck."""
    KILL = auto()
    """As TERMINATE, but with KILL at once."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Complete state of one service."""

    observed: bool = False
    heavy: bool = False
    state: ServiceState = "Stopped"
    phase: ProcessPhase = ProcessPhase.NONE
    should_run: bool = False
    """Desired state is Running; only Start, Stop and Restart change it."""
    halted: bool = False
    pid: int | None = None
    last_error: str | None = None
    restarts: int = 0
    """Retries since the service is in the catalogue."""
    stuck: bool = False
    """Processes or port did not become free; True until `Gone`."""


Step = tuple[Machine, tuple[Action, ...]]


def step(machine: Machine, event: Event) -> Step:
    """Return the machine after the event, and the actions. An event that does not fit the state changes nothing."""
    if machine.observed:
        return _observe(machine, event), ()
    match event:
        case events.Start():
            return _start(replace(machine, should_run=True))
        case events.Resume() if machine.state == "Stopped" and machine.phase is ProcessPhase.NONE:
            return _launch(machine)
        case events.Stop():
            return _stop(replace(machine, should_run=False))
        case events.Restart():
            return _restart(replace(machine, should_run=True, last_error=None))
        case events.Halt():
            return _stop(replace(machine, halted=True))
        case events.Hasten():
            return _hasten(machine)
        case events.Revised():
            return _revised(replace(machine, heavy=event.heavy))
    return _on_outcome(machine, event)


def is_settled(machine: Machine) -> bool:
    """Return True if no operation runs: only a command, a retry or an outside change can alter the state."""
    if machine.state == "Failed":
        return machine.phase is ProcessPhase.NONE or machine.stuck
    return machine.state in {"Stopped", "Running"}


def is_loading(machine: Machine) -> bool:
    """Return True if a heavy service loads or waits in the start queue: until it runs or its process has ended."""
    return machine.heavy and machine.state != "Running" and machine.phase is not ProcessPhase.NONE and not machine.stuck


def _on_outcome(machine: Machine, event: Event) -> Step:
    match event:
        case events.Adopted() if machine.state == "Stopped" and machine.phase is ProcessPhase.NONE:
            return _adopted(machine, event)
        case events.StartAllowed() if machine.phase is ProcessPhase.QUEUED:
            return replace(machine, phase=ProcessPhase.LAUNCHING), (Action.LAUNCH,)
        case events.Launched() | events.LaunchFailed() | events.LaunchHung():
            return _launch_ended(machine, event)
        case events.Ready() | events.StartTimedOut() | events.AdoptionFailed():
            return _probe_ended(machine, event)
        case events.Retry() if machine.state == "Failed" and machine.phase is ProcessPhase.NONE and _may_run(machine):
            return _launch(replace(machine, restarts=machine.restarts + 1))
        case events.Withdrawn() if machine.state == "Stopping" and machine.phase is ProcessPhase.ALIVE:
            return replace(machine, phase=ProcessPhase.ENDING), (Action.TERMINATE,)
    return _on_process_end(machine, event)


def _on_process_end(machine: Machine, event: Event) -> Step:
    match event:
        case events.Hung() if machine.state == "Running" and machine.phase is ProcessPhase.ALIVE:
            return replace(machine, state="Failed", phase=ProcessPhase.ENDING, last_error=event.error), (
                Action.TERMINATE,
            )
        case events.Exited() if machine.phase is ProcessPhase.ALIVE:
            return _exited(machine, event)
        case events.Gone() if machine.phase is ProcessPhase.ENDING:
            return _gone(replace(machine, phase=ProcessPhase.NONE, pid=None, stuck=False))
        case events.Stuck() if machine.phase is ProcessPhase.ENDING:
            return replace(machine, state="Failed", last_error=event.error, stuck=True), ()
    return machine, ()


def _observe(machine: Machine, event: Event) -> Machine:
    match event:
        case events.Ready():
            return replace(machine, state="Running", pid=event.pid, last_error=None)
        case events.Unready(absent=True):
            return replace(machine, state="Stopped", pid=None, last_error=event.error)
        case events.Unready():
            return replace(machine, state="Failed", pid=None, last_error=event.error)
    return machine


def _may_run(machine: Machine) -> bool:
    return machine.should_run and not machine.halted


def _launch(machine: Machine) -> Step:
    """Start the process. The error of an earlier attempt stays visible until a command or a stop."""
    if machine.heavy:
        return replace(machine, state="Starting", phase=ProcessPhase.QUEUED), (Action.QUEUE,)
    return replace(machine, state="Starting", phase=ProcessPhase.LAUNCHING), (Action.LAUNCH,)


def _start(machine: Machine) -> Step:
    if machine.halted:
        return machine, ()
    fresh = replace(machine, last_error=None)
    match machine.state, machine.phase:
        case ("Stopped", ProcessPhase.NONE):
            return _launch(fresh)
        case ("Failed", ProcessPhase.NONE):
            after, actions = _launch(fresh)
            return after, (Action.CANCEL_RETRY, *actions)
        case ("Failed", _):
            return replace(fresh, state="Starting"), (Action.KILL,)
        case ("Stopping", ProcessPhase.ALIVE):
            return replace(machine, state="Running"), (Action.CANCEL_WITHDRAWAL, Action.PROBE_LIVENESS)
        case ("Stopping", ProcessPhase.LAUNCHING):
            return replace(fresh, state="Starting"), ()
        case ("Starting" | "Stopping", _):
            return fresh, ()
    return machine, ()


def _restart(machine: Machine) -> Step:
    match machine.state, machine.phase:
        case ("Running", _) | ("Starting", ProcessPhase.ALIVE):
            return _stop(machine)
        case ("Stopping", _):
            return machine, ()
    return _start(machine)


def _revised(machine: Machine) -> Step:
    match machine.state, machine.phase:
        case ("Starting", ProcessPhase.QUEUED) if not machine.heavy:
            return replace(machine, phase=ProcessPhase.LAUNCHING), (Action.LAUNCH,)
        case ("Starting", ProcessPhase.ALIVE):
            return machine, (Action.PROBE,)
        case ("Running", _):
            return machine, (Action.PROBE_LIVENESS,)
    return machine, ()


def _stop(machine: Machine) -> Step:
    match machine.state, machine.phase:
        case ("Running", _):
            return replace(machine, state="Stopping"), (Action.STOP_PROBE, Action.WITHDRAW)
        case ("Starting", ProcessPhase.ALIVE):
            return replace(machine, state="Stopping", phase=ProcessPhase.ENDING), (Action.STOP_PROBE, Action.TERMINATE)
        case ("Starting", ProcessPhase.QUEUED):
            return _stopped(replace(machine, phase=ProcessPhase.NONE)), ()
        case ("Starting", _):
            return replace(machine, state="Stopping"), ()
        case ("Failed", ProcessPhase.NONE):
            return machine if machine.halted else _stopped(machine), (Action.CANCEL_RETRY,)
        case ("Failed", ProcessPhase.ENDING) if not machine.halted:
            return replace(machine, state="Stopping"), (Action.KILL,)
    return machine, ()


def _hasten(machine: Machine) -> Step:
    match machine.state, machine.phase:
        case ("Running" | "Starting" | "Stopping", ProcessPhase.ALIVE):
            ending = replace(machine, state="Stopping", phase=ProcessPhase.ENDING)
            return ending, (Action.STOP_PROBE, Action.CANCEL_WITHDRAWAL, Action.KILL)
        case (_, ProcessPhase.ENDING) if not machine.stuck:
            return machine, (Action.KILL,)
    return machine, ()


def _stopped(machine: Machine) -> Machine:
    return replace(machine, state="Stopped", last_error=None)


def _adopted(machine: Machine, event: events.Adopted) -> Step:
    alive = replace(machine, phase=ProcessPhase.ALIVE, pid=event.pid)
    if not machine.should_run:
        return replace(alive, state="Stopping", phase=ProcessPhase.ENDING), (Action.TERMINATE,)
    starting = replace(alive, state="Starting")
    match event.state:
        case AdoptionState.WAS_READY:
            return replace(alive, state="Running"), (Action.PROBE_ADOPTED,)
        case AdoptionState.WAS_LOADING:
            return starting, (Action.PROBE,)
        case AdoptionState.UNFIT:
            return replace(starting, phase=ProcessPhase.ENDING), (Action.TERMINATE,)


def _launch_ended(machine: Machine, event: events.Launched | events.LaunchFailed | events.LaunchHung) -> Step:
    if machine.phase is not ProcessPhase.LAUNCHING:
        return machine, ()
    if isinstance(event, events.LaunchHung):
        state: ServiceState = "Failed" if machine.state == "Starting" else machine.state
        return replace(machine, state=state, phase=ProcessPhase.ENDING, last_error=event.error), (Action.KILL,)
    if isinstance(event, events.Launched):
        alive = replace(machine, phase=ProcessPhase.ALIVE, pid=event.pid)
        if machine.state == "Starting":
            return alive, (Action.PROBE,)
        return replace(alive, phase=ProcessPhase.ENDING), (Action.TERMINATE,)
    gone = replace(machine, phase=ProcessPhase.NONE)
    if machine.state == "Starting":
        return replace(gone, state="Failed", last_error=event.error), (Action.RETRY,)
    return _gone(gone)


def _probe_ended(machine: Machine, event: events.Ready | events.StartTimedOut | events.AdoptionFailed) -> Step:
    if machine.phase is not ProcessPhase.ALIVE:
        return machine, ()
    match machine.state, event:
        case ("Starting" | "Running", events.Ready()):
            return replace(machine, state="Running"), (Action.PROBE_LIVENESS,)
        case ("Starting", events.StartTimedOut(error)):
            return replace(machine, state="Failed", phase=ProcessPhase.ENDING, last_error=error), (Action.KILL,)
        case ("Running", events.AdoptionFailed(error)):
            ending = replace(machine, state="Starting", phase=ProcessPhase.ENDING, last_error=error)
            return ending, (Action.TERMINATE,)
    return machine, ()


def _exited(machine: Machine, event: events.Exited) -> Step:
    ending = replace(machine, phase=ProcessPhase.ENDING, pid=None)
    if machine.state == "Stopping":
        return ending, (Action.CANCEL_WITHDRAWAL, Action.KILL)
    return replace(ending, state="Failed", last_error=event.error), (Action.STOP_PROBE, Action.KILL)


def _gone(machine: Machine) -> Step:
    if machine.state == "Failed":
        if machine.should_run:
            return machine, (Action.RETRY,) if _may_run(machine) else ()
        return _stopped(machine), ()
    return _launch(machine) if _may_run(machine) else (_stopped(machine), ())
