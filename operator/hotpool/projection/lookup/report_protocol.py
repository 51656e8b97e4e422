"""Sans-I/O protocol of failure reports, and of releases, which may report (requirement E8).

Must not do I/O, but for a log line that names missing rights.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

from redis.exceptions import RedisError

from hotpool.projection.connection.config import to_text
from hotpool.projection.failures import pick_commands, report_commands
from hotpool.projection.functions import CommandArgs, build_call
from hotpool.projection.keys import FleetKeys
from hotpool.projection.lookup.report_options import (
    FailureKind,
    check_source,
    default_source,
    outcome_arguments,
    outcome_of,
)
from hotpool.projection.lookup.results import Picked, ReportEffect, Reservation
from hotpool.projection.lookup.steps import Steps
from hotpool.projection.redis_errors import is_denied
from hotpool.projection.slots import slot_commands, slot_read_commands
from hotpool.projection.waiting import wake_commands

_log: Final = logging.getLogger("hotpool.lookup")


_EFFECTS: Final = {
    "slots": "limits of services are ignored",
    "pick": "picks ignore ejected services",
    "report": "failure reports are not counted",
    "wait": "picks do not wait",
    "wake": "releases wake no waiting pick",
}


class ReportProtocol:
    """Reports in one fleet. Invalid arguments raise ValueError, TypeError or LookupError before the first command."""

    def __init__(self, keys: FleetKeys, source: str | None) -> None:
        self._keys = keys
        self._source = None if source is None else check_source(source)
        self._checked: set[str] = set()
        """Features whose rights were checked before their first use."""
        self._denied: frozenset[str] = frozenset()
        """Features for which our user lacks the rights: `slots`, `pick` and `report` of failure reports, `wait` of
        picks, and `wake` of picks that wait for a release."""

    def _note_denied(self, part: str, error: BaseException) -> Steps[None]:
        """Switch off a part of failure reports if its rights are missing, and name them once."""
        if not is_denied(error) or part in self._denied:
            return
        commands = pick_commands(self._keys) if part == "pick" else report_commands(self._keys)
        missing = yield from self._missing_rights(commands)
        self._switch_off({part: missing or (str(error),)})

    def _missing_rights(self, commands: Sequence[str]) -> Steps[tuple[str, ...]]:
        """Return those of the commands that our user may not execute: a dry call."""
        try:
            return tuple(map(to_text, (yield build_call("denied_commands", (self._keys.meta,), commands))))
        except RedisError:
            return ()

    def _switch_off(self, missing: Mapping[str, Sequence[str]]) -> None:
        """Switch off features, and name the missing rights of each in one line."""
        if not missing:
            return
        self._denied |= {*missing, *({"report"} if "pick" in missing else ())}
        effects = ", and ".join(_EFFECTS[part] for part in missing)
        rights = ", ".join(right for rights in missing.values() for right in rights)
        _log.warning("%s until this client is opened again: the ACL of Redis lacks %s", effects, rights)

    def _find_denied(self, error: BaseException, *, writes: bool = True) -> Steps[bool]:
        """Switch off the features of reservations and picks for which our user lacks rights. Return False for none.

        `writes`: False for a pick, which only reads slots.
        """
        if not is_denied(error):
            return False
        found: dict[str, tuple[str, ...]] = {}
        of_slots = slot_commands(self._keys) if writes else slot_read_commands(self._keys)
        parts = ("slots", of_slots), ("pick", pick_commands(self._keys)), ("wake", wake_commands(self._keys))
        for part, commands in parts if writes else parts[:2]:
            missing = () if part in self._denied else (yield from self._missing_rights(commands))
            if missing:
                found[part] = missing
        self._switch_off(found)
        return bool(found)

    def _slot_keys(self) -> tuple[str, ...]:
        return () if "slots" in self._denied else self._keys.slots

    def _check_rights(self, part: str, commands: Sequence[str]) -> Steps[None]:
        """Switch off a feature if a right is missing, and name it: one dry call of a client."""
        if part not in self._checked:
            missing = yield from self._missing_rights(commands)
            self._checked.add(part)
            self._switch_off({part: missing} if missing and part not in self._denied else {})

    def _release_keys(self) -> tuple[str, ...]:
        """Return the keys of slots, and the stream that wakes waiting picks when one becomes free."""
        slots = self._slot_keys()
        return (*slots, *(self._keys.waiting[:1] if slots and "wake" not in self._denied else ()))

    def report(
        self, picked: Picked | Reservation, failed: FailureKind | Literal[False], types: Collection[str] | None
    ) -> Steps[ReportEffect]:
        """Report the outcome of a request to the picked services."""
        return self._report_outcome(picked.pool, self._outcome(picked, failed, types))

    def _report_outcome(self, pool: str, arguments: CommandArgs) -> Steps[ReportEffect]:
        if "report" not in self._denied:
            try:
                reply = yield build_call("report_outcome", self._report_keys(pool), arguments, writes=True)
            except RedisError as error:
                if not is_denied(error):
                    raise
                yield from self._note_denied("report", error)
            else:
                return ReportEffect(to_text(reply))
        return ReportEffect.DENIED

    def _report_keys(self, pool: str) -> tuple[str, ...]:
        return (*self._keys.failures, self._keys.endpoints, self._keys.pool(pool)[1])

    def _outcome(
        self, picked: Picked | Reservation, failed: FailureKind | Literal[False], types: Collection[str] | None
    ) -> CommandArgs:
        return outcome_arguments(self._source or default_source(), picked, outcome_of(failed), types)

    def release(
        self,
        reservation: Reservation | str,
        failed: FailureKind | Literal[False] | None = None,
        types: Collection[str] | None = None,
    ) -> Steps[bool]:
        """Release a reservation, and report the outcome of its request unless `failed` is None."""
        if failed is None:
            return self._release(reservation)
        if isinstance(reservation, str):
            raise TypeError("a report needs the reservation, not its id")
        return self._release(reservation, reservation.pool, self._outcome(reservation, failed, types))

    def _release(self, reservation: Reservation | str, pool: str = "", outcome: CommandArgs = ()) -> Steps[bool]:
        identity = reservation_id(reservation)
        if isinstance(reservation, Reservation) and reservation.services:
            yield from self._check_rights("wake", wake_commands(self._keys))  # the function skips what it may not do
        while True:
            reports = bool(outcome) and "report" not in self._denied
            keys = (*self._keys.load, *self._release_keys(), *(self._report_keys(pool) if reports else ()))
            arguments = (identity, *outcome) if reports else (identity,)
            try:
                return bool((yield build_call("release", keys, arguments, writes=True)))
            except RedisError as error:
                if (yield from self._find_denied(error)):
                    continue
                if not (reports and is_denied(error)):
                    raise
                yield from self._note_denied("report", error)


def reservation_id(reservation: Reservation | str) -> str:
    """Return the id of a reservation."""
    return reservation if isinstance(reservation, str) else reservation.id
