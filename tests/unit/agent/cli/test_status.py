"""Exit code of `hotpool-agent status` (requirement F5)."""

from typing import Any

import pytest

from hotpool_agent.cli.status import exit_code


@pytest.mark.parametrize(
    ("state", "desired", "more", "expected"),
    [
        ("Running", "Running", {"notOffered": None}, 0),
        ("Running", None, {"notOffered": None}, 0),
        ("Stopped", "Stopped", {"notOffered": "Stopped"}, 0),
        ("Stopped", None, {"notOffered": "Stopped"}, 0),
        ("Stopping", "Stopped", {"notOffered": "Stopping"}, 0),
        ("Running", "Running", {"notOffered": "Draining"}, 0),
        ("Failed", "Running", {"notOffered": "Failed"}, 5),
        ("Failed", "Stopped", {"notOffered": "Failed"}, 5),
        ("Failed", None, {"notOffered": "Failed"}, 5),
        ("Starting", "Running", {"notOffered": "Starting"}, 5),
        ("Running", "Running", {"notOffered": "Flapping"}, 5),
        ("Running", "Running", {"notOffered": "DeviceNotAccepted"}, 5),
        ("Running", None, {"notOffered": "NoRoom"}, 5),
        ("Running", "Running", {"notOffered": None, "dropped": 1}, 5),
        ("Failed", "Running", {}, 5),
        ("Running", "Running", {}, 0),
    ],
)
def test_the_exit_code_tells_whether_everything_that_should_run_is_offered(
    state: str, desired: str | None, more: dict[str, Any], expected: int
) -> None:
    services = [{"state": state, "desired": desired, **more}]
    assert exit_code({"problems": {}, "services": services}) == expected
    assert exit_code({"problems": {"report": "refused"}, "services": services}) == 4
