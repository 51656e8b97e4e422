"""Numbers and fields in docs/how-to/what-happened.md and the section Log of docs/reference/operator.md (F8)."""

from typing import Final

import pytest

from hotpool.core.node_liveness import EXPIRED_AFTER
from hotpool.core.service_incidents import INCIDENT_LINES, ServiceIncident
from hotpool.events.aggregator import BURST, QUIET_SECONDS, RATE
from hotpool.events.membership_log import MAX_PENDING
from hotpool.projection.history import MAX_TRANSITIONS
from localfleet.kind import REPOSITORY

PAGE: Final = " ".join((REPOSITORY / "docs/how-to/what-happened.md").read_text(encoding="utf-8").split())
REFERENCE: Final = (REPOSITORY / "docs/reference/operator.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "fact",
    [
        f"one per object and reason in {QUIET_SECONDS:.0f} s",
        f"more than {RATE:.0f} per second after a burst of {BURST}",
        f"the last {MAX_TRANSITIONS} transitions of each node",
        f"{EXPIRED_AFTER:.0f} s of silence of the node",
    ],
)
def test_the_page_has_the_bounds_of_the_code(fact: str) -> None:
    assert fact in PAGE


def test_the_reference_has_the_fields_of_the_log() -> None:
    rows = [line for line in REFERENCE.splitlines() if line.startswith("| `")]
    (incidents,) = (row for row in rows if all(f"`{event}`" in row for event in INCIDENT_LINES.values()))
    assert [field for field in ServiceIncident._fields if f"`{field}`" not in incidents] == []
    assert f"{MAX_PENDING:,} changes wait" in REFERENCE
