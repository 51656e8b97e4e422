"""Event that follows when a service's task raises an unexpected exception (requirement A12). Pure.

Each task ends with an event, so that no service keeps a state in which nothing goes on.
"""

from typing import Final

from hotpool_agent.services import events
from hotpool_agent.services.events import Event
from hotpool_agent.services.state_machine import Machine, ProcessPhase

_LENGTH: Final = 200


def event_of(task: str, error: BaseException, machine: Machine) -> Event | None:
    """Return the event that ends the work of a task as a failure. `task`: its name in the controller."""
    text = _text(error)
    match task:
        case "process" if machine.phase is ProcessPhase.LAUNCHING:
            return events.LaunchFailed(text)
        case "process":
            return events.Exited(text)
        case "probe" if machine.observed:
            return events.Unready(text, absent=False)
        case "probe":
            return events.StartTimedOut(text) if machine.state == "Starting" else events.Hung(text)
        case "retry":
            return events.Retry()
        case "withdraw":
            return events.Withdrawn()
        case "end":
            # The processes may still live, so the service has not stopped.
            return events.Stuck(text)
    return None


def _text(error: BaseException) -> str:
    text = f"internal error: {type(error).__name__}: {error}"[:_LENGTH]
    return text.encode(errors="replace").decode()
