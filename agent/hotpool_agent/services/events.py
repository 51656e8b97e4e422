"""Events of one service: commands, and outcomes of the actions that its state machine requested. Plain values."""

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Failure(Event):
    """Base of outcomes with the text of an error."""

    error: str


class Start(Event):
    """Command of a user, or of auto-start, to run the service."""


class Resume(Event):
    """Start of a service whose desired state is Running, by an agent that begins. The last error stays visible."""


class Stop(Event):
    """Command of a user to stop the service."""


class Restart(Event):
    """Command of a user to run the service in a new process."""


class Halt(Event):
    """Stop without a change of the desired state: the agent shuts down, or the service left the catalogue."""


class Hasten(Event):
    """End the service at once, as a second signal to an agent that shuts down demands."""


@dataclass(frozen=True, slots=True)
class Revised(Event):
    """Change of the probes or of `heavy` in the catalogue; the process stays."""

    heavy: bool


class AdoptionState(Enum):
    """State of a process that an earlier agent left (requirement A11)."""

    WAS_READY = auto()
    WAS_LOADING = auto()
    UNFIT = auto()
    """It must not be adopted: its catalogue entry has changed, or only its children live."""


@dataclass(frozen=True, slots=True)
class Adopted(Event):
    """A process of the service exists already; the first event of its state machine."""

    pid: int
    state: AdoptionState


class StartAllowed(Event):
    """No other heavy service is loading."""


@dataclass(frozen=True, slots=True)
class Launched(Event):
    """The process exists."""

    pid: int


class LaunchFailed(Failure):
    """The process could not be started, because of `error`."""


class LaunchHung(Failure):
    """The program did not begin in time, and what exists of it must be ended."""


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """A probe succeeded. `pid`: of an observed service, where the probe found it."""

    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Unready(Failure):
    """Probes of an observed service failed. `absent`: nothing was found at all, so it is stopped, not failed."""

    absent: bool


class StartTimedOut(Failure):
    """No probe succeeded within the start time-out."""


class AdoptionFailed(Failure):
    """As many probes in a row of an adopted process failed as the catalogue allows."""


class Hung(Failure):
    """As many liveness probes in a row failed as the catalogue allows."""


class Retry(Event):
    """The back-off has ended."""


class Exited(Failure):
    """The process ended; `error` names its exit code or signal."""


class Withdrawn(Event):
    """The API server accepted the withdrawal, or the time to wait for it is over."""


class Gone(Event):
    """All processes of the service have ended and the port is free."""


class Stuck(Failure):
    """Processes still live, or the port is still in use, after KILL."""
