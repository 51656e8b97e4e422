"""What the tests of whole fleets share: objects to apply, and looks at what is published and written."""

from typing import Any

from localfleet.fleet import Fleet

BOTH = {"edge-1": "Ready", "edge-2": "Ready"}
"""Membership of a pool that two nodes qualify for."""


def pool(name: str, **requires: Any) -> dict[str, Any]:
    """A pool by hand."""
    return {
        "apiVersion": "hotpool.dev/v1alpha1",
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {"requires": requires},
    }


def everywhere(fleet: Fleet, name: str, expected: dict[str, str]) -> bool:
    """Whether slices and Redis both say so."""
    return fleet.members(name) == expected and fleet.members_in_redis(name) == expected
