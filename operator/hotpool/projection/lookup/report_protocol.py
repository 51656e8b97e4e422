"""Sans-I/O protocol of failure reports, and of releases, which may report (requirement E8).

Must not do I/O, but for a log line that names missing rights.
"""

import logging
from collections.abc import Collection
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

_log: Final = logging.getLogger("hotpool.lookup")


class ReportProtocol:
    """Reports in one fleet. Invalid arguments raise ValueError, TypeError or LookupError before the first command."""

    def __init__(self, keys: FleetKeys, source: str | None) -> None:
        self._keys = keys
        self._source = None if source is None else check_source(source)
        self._denied: set[str] = set()
        """Parts of failure reports, `pick` and `report`, for which our user lacks the rights."""

    def _note_denied(self, part: str, error: BaseException) -> Steps[None]:
        """Switch off a part of failure reports if its rights are missing, and name them once."""
        if not is_denied(error) or part in self._denied:
            return
        self._denied |= {part, "report"}
        commands = pick_commands(self._keys) if part == "pick" else report_commands(self._keys)
        try:
            missing = yield build_call("denied_commands", (self._keys.meta,), commands)
        except RedisError:
            missing = ()
        names = ", ".join(map(to_text, missing)) or str(error)
        off = "picks ignore ejected services" if part == "pick" else "failure reports are not counted"
        _log.warning("%s until this client is opened again: the ACL of Redis lacks %s", off, names)

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
            return self._release(reservation_id(reservation))
        if isinstance(reservation, str):
            raise TypeError("a report needs the reservation, not its id")
        return self._release(reservation.id, reservation.pool, self._outcome(reservation, failed, types))

    def _release(self, identity: str, pool: str = "", outcome: CommandArgs = ()) -> Steps[bool]:
        if outcome and "report" not in self._denied:
            keys = (*self._keys.load, *self._report_keys(pool))
            try:
                return bool((yield build_call("release", keys, (identity, *outcome), writes=True)))
            except RedisError as error:
                if not is_denied(error):
                    raise
                yield from self._note_denied("report", error)
        return bool((yield build_call("release", self._keys.load, (identity,), writes=True)))


def reservation_id(reservation: Reservation | str) -> str:
    """Return the id of a reservation."""
    return reservation if isinstance(reservation, str) else reservation.id
