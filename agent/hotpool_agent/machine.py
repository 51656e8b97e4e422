"""The states of one service as a pure function: (machine, event) → (machine, actions). Behaviour A3, A4, A5, A7, A9.

Called by `service`, which performs the actions and returns their outcome as events. Must not know time, processes or
asyncio. One operation at a time: every command is remembered at once, and acted on when the one under way has ended.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from hotpool.api.capability import ServiceState


class Body(Enum):
    """What exists of a supervised service's process."""

    NONE = auto()
    LAUNCHING = auto()
    ALIVE = auto()
    ENDING = auto()
    """It shall go, or its remains shall; `Gone` follows."""


class Action(Enum):
    """What `service` must do now."""

    LAUNCH = auto()
    """Run the process; answer Launched or LaunchFailed."""
    PROBE = auto()
    """Probe until it is ready; answer Ready or StartTimedOut."""
    UNPROBE = auto()
    ANNOUNCE = auto()
    """Wait until the report that withdraws the service is out; answer Announced."""
    UNANNOUNCE = auto()
    TERMINATE = auto()
    """TERM, later KILL, to the whole process group; answer Gone when group and port are free, Stuck if they stay."""
    KILL = auto()
    """As TERMINATE, beginning with KILL."""


@dataclass(frozen=True, slots=True)
class Start:
    """A user, or auto-start, wants the service to run."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A user wants the service to stop."""


@dataclass(frozen=True, slots=True)
class Halt:
    """The agent shuts down: stop, and leave the wish as it is."""


@dataclass(frozen=True, slots=True)
class Launched:
    """The process exists."""

    pid: int


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """There is no process, because of `error`."""

    error: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A probe succeeded. `pid`: of an observed service, where the probe knows it."""

    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Unready:
    """Probes say that an observed service is out. `absent`: nothing is there at all, so it is stopped, not failed."""

    error: str
    absent: bool


@dataclass(frozen=True, slots=True)
class StartTimedOut:
    """No probe succeeded in time."""

    error: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended; `how` names its exit code or signal."""

    how: str


@dataclass(frozen=True, slots=True)
class Announced:
    """The withdrawal was accepted, or waiting for it was given up."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Process group and port are free."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Process group or port are not free although KILL was sent."""

    error: str


Event = (
    Start | Stop | Halt | Launched | LaunchFailed | Ready | Unready | StartTimedOut | Exited | Announced | Gone | Stuck
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that decides what happens next to one service."""

    observed: bool = False
    state: ServiceState = "Stopped"
    body: Body = Body.NONE
    wanted: bool = False
    """The wish: only Start and Stop change it."""
    halted: bool = False
    pid: int | None = None
    last_error: str | None = None
    stuck: bool = False
    """Group or port did not become free; until `Gone` says so."""


Step = tuple[Machine, tuple[Action, ...]]


def step(machine: Machine, event: Event) -> Step:
    """The machine after the event, and what to do. An event that does not fit the state changes nothing."""
    if machine.observed:
        return _observe(machine, event), ()
    match event:
        case Start():
            return _start(replace(machine, wanted=True))
        case Stop():
            return _wind_down(replace(machine, wanted=False))
        case Halt():
            return _wind_down(replace(machine, halted=True))
    return _happened(machine, event)


def settled(machine: Machine) -> bool:
    """Whether nothing is under way: the state stays until a command or the outside world changes it."""
    if machine.state == "Failed":
        return machine.body is Body.NONE or machine.stuck
    return machine.state in {"Stopped", "Running"}


def _happened(machine: Machine, event: Event) -> Step:
    match event:
        case Launched() | LaunchFailed():
            return _launch_ended(machine, event)
        case Ready() | StartTimedOut():
            return _probe_ended(machine, event)
        case Exited():
            return _exited(machine, event)
        case Announced() if machine.state == "Stopping" and machine.body is Body.ALIVE:
            return replace(machine, body=Body.ENDING), (Action.TERMINATE,)
        case Gone() if machine.body is Body.ENDING:
            return _gone(replace(machine, body=Body.NONE, pid=None, stuck=False))
        case Stuck() if machine.body is Body.ENDING:
            return replace(machine, state="Failed", last_error=event.error, stuck=True), ()
    return machine, ()


def _observe(machine: Machine, event: Event) -> Machine:
    match event:
        case Ready():
            return replace(machine, state="Running", pid=event.pid, last_error=None)
        case Unready(absent=True):
            return replace(machine, state="Stopped", pid=None, last_error=None)
        case Unready():
            return replace(machine, state="Failed", pid=None, last_error=event.error)
    return machine


def _launch(machine: Machine) -> Step:
    return replace(machine, state="Starting", body=Body.LAUNCHING, last_error=None), (Action.LAUNCH,)


def _start(machine: Machine) -> Step:
    if machine.halted:
        return machine, ()
    match machine.state, machine.body:
        case ("Stopped" | "Failed", Body.NONE):
            return _launch(machine)
        case ("Failed", _):
            return replace(machine, state="Starting", last_error=None), (Action.KILL,)
        case ("Stopping", Body.ALIVE):
            return replace(machine, state="Running"), (Action.UNANNOUNCE,)
        case ("Stopping", Body.LAUNCHING):
            return replace(machine, state="Starting"), ()
    return machine, ()


def _wind_down(machine: Machine) -> Step:
    match machine.state, machine.body:
        case ("Running", _):
            return replace(machine, state="Stopping"), (Action.ANNOUNCE,)
        case ("Starting", Body.ALIVE):
            return replace(machine, state="Stopping", body=Body.ENDING), (Action.UNPROBE, Action.TERMINATE)
        case ("Starting", _):
            return replace(machine, state="Stopping"), ()
        case ("Failed", Body.NONE) if not machine.halted:
            return replace(machine, state="Stopped"), ()
        case ("Failed", Body.ENDING) if not machine.halted:
            return replace(machine, state="Stopping"), (Action.KILL,)
    return machine, ()


def _launch_ended(machine: Machine, event: Launched | LaunchFailed) -> Step:
    if machine.body is not Body.LAUNCHING:
        return machine, ()
    if isinstance(event, Launched):
        alive = replace(machine, body=Body.ALIVE, pid=event.pid)
        if machine.state == "Starting":
            return alive, (Action.PROBE,)
        return replace(alive, body=Body.ENDING), (Action.TERMINATE,)
    gone = replace(machine, body=Body.NONE)
    if machine.state == "Starting":
        return replace(gone, state="Failed", last_error=event.error), ()
    return _gone(gone)


def _probe_ended(machine: Machine, event: Ready | StartTimedOut) -> Step:
    if machine.state != "Starting" or machine.body is not Body.ALIVE:
        return machine, ()
    if isinstance(event, Ready):
        return replace(machine, state="Running"), ()
    return replace(machine, state="Failed", body=Body.ENDING, last_error=event.error), (Action.KILL,)


def _exited(machine: Machine, event: Exited) -> Step:
    if machine.body is not Body.ALIVE:
        return machine, ()
    ending = replace(machine, body=Body.ENDING, pid=None)
    if machine.state == "Stopping":
        return ending, (Action.UNANNOUNCE, Action.KILL)
    return replace(ending, state="Failed", last_error=event.how), (Action.UNPROBE, Action.KILL)


def _gone(machine: Machine) -> Step:
    go_on = machine.wanted and not machine.halted
    if machine.state in {"Starting", "Stopping"}:
        return _launch(machine) if go_on else (replace(machine, state="Stopped"), ())
    if machine.state == "Failed" and not machine.wanted:
        return replace(machine, state="Stopped"), ()
    return machine, ()
