"""Objects and checks for tests of whole fleets."""

from typing import Any

from localfleet.fleet import Fleet

BOTH = {"edge-1": "Ready", "edge-2": "Ready"}
"""Members of a pool that matches the two nodes."""


def pool(name: str, **requires: Any) -> dict[str, Any]:
    """Return a pool with these requirements."""
    return {
        "apiVersion": "hotpool.dev/v1alpha1",
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {"requires": requires},
    }


def published(fleet: Fleet, name: str, expected: dict[str, str]) -> bool:
    """Return True if slices and Redis both hold the expected members."""
    return fleet.members(name) == expected and fleet.members_in_redis(name) == expected
