"""Restarts and the last failure of one supervised service in its entry of the state file, for the next agent (F8).

The caller saves the file.
"""

from hotpool_agent.services.state_machine import Machine
from hotpool_agent.state_store import LAST_ERROR_LENGTH, StoredServiceState
from hotpool_agent.untrusted_text import readable


def restored(machine: Machine, stored: StoredServiceState) -> tuple[int, str | None, tuple[str, ...]]:
    """Return restarts, last error and last output with which a service begins that should run."""
    error = stored.last_error if machine.should_run else None
    return max(0, stored.restarts), error, stored.last_output if error else ()


def store_failure(machine: Machine, output: tuple[str, ...], stored: StoredServiceState) -> bool:
    """Store restarts and last failure. Return False if nothing changed.

    A service that ends because the agent ends keeps its entry. An observed service has none: its next probe tells.
    """
    if machine.observed or machine.halted:
        return False
    error = readable(machine.last_error, LAST_ERROR_LENGTH) if machine.last_error else None
    failure = machine.restarts, error, output if error else ()
    changed = failure != (stored.restarts, stored.last_error, stored.last_output)
    stored.restarts, stored.last_error, stored.last_output = failure
    return changed


def forget_failure(stored: StoredServiceState) -> None:
    """Begin again, as for a service whose program was replaced."""
    stored.restarts, stored.last_error, stored.last_output = 0, None, ()
