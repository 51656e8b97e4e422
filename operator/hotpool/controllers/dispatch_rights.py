"""Log and metrics of features of dispatchers for which the operator lacks rights in Redis."""

from collections.abc import Collection
from typing import Final

import structlog

from hotpool.observability.metrics import FAILURES_ENABLED, SLOTS_ENABLED, WAITING_ENABLED

log = structlog.get_logger(__name__)

_FAILURES: Final = "failure reports are not read"
_SLOTS: Final = "slots in use are not read"
_WAITING: Final = "changes of pools and nodes do not wake waiting picks"


class DispatchRights:
    """Rights on the keys of dispatchers, as of the last check."""

    def __init__(self) -> None:
        self._off: set[str] = set()

    def update(self, failures: Collection[str], slots: Collection[str], waiting: Collection[str]) -> None:
        """Note the rights that our user lacks for each feature. Log changes."""
        FAILURES_ENABLED.set(not failures)
        SLOTS_ENABLED.set(not slots)
        WAITING_ENABLED.set(not waiting)
        for effect, denied in ((_FAILURES, failures), (_SLOTS, slots), (_WAITING, waiting)):
            if denied and effect not in self._off:
                log.warning("the ACL of Redis lacks rights", effect=effect, missing=", ".join(denied))
                self._off.add(effect)
            elif not denied and effect in self._off:
                log.info("the ACL of Redis grants the rights that it lacked", resolved=effect)
                self._off.discard(effect)
