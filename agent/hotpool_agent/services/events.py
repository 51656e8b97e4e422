"""What happens to a service: commands, and outcomes of the actions that its machine asked for. Plain values.

Made by `node`, `service` and `checks`; `machine` decides what follows from them.
"""

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Start:
    """A user, or auto-start, wants the service to run."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A user wants the service to stop."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A user wants the service to run in a new process."""


@dataclass(frozen=True, slots=True)
class Halt:
    """The agent shuts down, or the catalogue has the service no more: stop, and leave the wish as it is."""


@dataclass(frozen=True, slots=True)
class Revised:
    """The catalogue says otherwise how the process is probed, or whether it is heavy."""

    heavy: bool


class AdoptionState(Enum):
    """What is known of a process that an earlier agent left (requirement A11)."""

    WAS_READY = auto()
    WAS_LOADING = auto()
    UNFIT = auto()
    """It is not what the catalogue says any more."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """There is a process of the service already; the first event of its machine."""

    pid: int
    state: AdoptionState


@dataclass(frozen=True, slots=True)
class StartAllowed:
    """No other heavy service loads."""


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
class AdoptionFailed:
    """The adopted process does not answer as the service would."""

    error: str


@dataclass(frozen=True, slots=True)
class Hung:
    """A fixed number of probes in a row failed while it ran."""

    error: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The back-off is over."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended; `how` names its exit code or signal."""

    reason: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The withdrawal was accepted, or waiting for it was given up."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Process group and port are free."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Process group or port are not free although KILL was sent."""

    error: str


Event = (
    Start
    | Stop
    | Restart
    | Halt
    | Revised
    | Adopted
    | StartAllowed
    | Launched
    | LaunchFailed
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
