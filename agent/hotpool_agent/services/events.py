"""Events of one service: commands, and outcomes of the actions that its state machine requested. Plain values."""

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Start:
    """Command of a user, or of auto-start, to run the service."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Command of a user to stop the service."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Command of a user to run the service in a new process."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop without a change of the desired state: the agent shuts down, or the service left the catalogue."""


@dataclass(frozen=True, slots=True)
class Hasten:
    """End the service at once, as a second signal to an agent that shuts down demands."""


@dataclass(frozen=True, slots=True)
class Revised:
    """Change of the probes or of `heavy` in the catalogue; the process stays."""

    heavy: bool


class AdoptionState(Enum):
    """State of a process that an earlier agent left (requirement A11)."""

    WAS_READY = auto()
    WAS_LOADING = auto()
    UNFIT = auto()
    """It must not be adopted: its catalogue entry has changed, or only its children live."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process of the service exists already; the first event of its state machine."""

    pid: int
    state: AdoptionState


@dataclass(frozen=True, slots=True)
class StartAllowed:
    """No other heavy service is loading."""


@dataclass(frozen=True, slots=True)
class Launched:
    """The process exists."""

    pid: int


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The process could not be started, because of `error`."""

    error: str


@dataclass(frozen=True, slots=True)
class LaunchHung:
    """The program did not begin in time, and what exists of it must be ended."""

    error: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A probe succeeded. `pid`: of an observed service, where the probe found it."""

    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Unready:
    """Probes of an observed service failed. `absent`: nothing was found at all, so it is stopped, not failed."""

    error: str
    absent: bool


@dataclass(frozen=True, slots=True)
class StartTimedOut:
    """No probe succeeded within the start time-out."""

    error: str


@dataclass(frozen=True, slots=True)
class AdoptionFailed:
    """As many probes in a row of an adopted process failed as the catalogue allows."""

    error: str


@dataclass(frozen=True, slots=True)
class Hung:
    """As many liveness probes in a row failed as the catalogue allows."""

    error: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The back-off has ended."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended; `reason` names its exit code or signal."""

    reason: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The API server accepted the withdrawal, or the time to wait for it is over."""


@dataclass(frozen=True, slots=True)
class Gone:
    """All processes of the service have ended and the port is free."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Processes still live, or the port is still in use, after KILL."""

    error: str


Event = (
    Start
    | Stop
    | Restart
    | Halt
    | Hasten
    | Revised
    | Adopted
    | StartAllowed
    | Launched
    | LaunchFailed
    | LaunchHung
    | Ready
    | Unready
    | StartTimedOut
    | AdoptionFailed
    | Hung
    | Retry
    | Exited
    | Withdrawn
    | Gone
    | Stuck
)
