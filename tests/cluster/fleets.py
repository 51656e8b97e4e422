"""What the tests of whole fleets share: objects to apply, and looks at what is published and written."""

from typing import Any

from localfleet.fleet import Fleet

BOTH = {"edge-1": "Ready", "edge-2": "Ready"}
"""Membership of a pool that two nodes qualify for."""
_WRITES = {"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}


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


def operator_writes(fleet: Fleet) -> float:
    """Writes to our kinds that the API server has counted since it started; those of agents (reports) left out."""
    total = 0.0
    for line in fleet.kubectl("get", "--raw", "/metrics").splitlines():
        if not line.startswith("apiserver_request_total{") or 'group="hotpool.dev"' not in line:
            continue
        labels, count = line[line.index("{") + 1 :].rsplit("} ", 1)
        said = {name: text.strip('"') for name, text in (pair.split("=", 1) for pair in labels.split(","))}
        if said["verb"] in _WRITES and (said["verb"], said["resource"]) != ("PATCH", "nodecapabilities"):
            total += float(count)
    return total
