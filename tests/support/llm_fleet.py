"""A fleet of a few nodes that serve an LLM, with their reports, in the fake API server."""

from typing import Any

from tests.support.builders import condition, node_object, pool_object, report, requires, service, stopped
from tests.support.simulated_fleet import FakeApi

from hotpool.core.model import Kind


def llm(sequence: int = 1, **more: Any) -> dict[str, Any]:
    """Return a report of a Running service."""
    return report(service("q", "llm"), sequence=sequence, **more)


def no_llm(sequence: int, **more: Any) -> dict[str, Any]:
    """Return a report of the Stopped service."""
    return report(stopped("q", "llm"), sequence=sequence, **more)


def small_fleet(nodes: int = 2, **spec: Any) -> FakeApi:
    """Return an API server with a pool `llm` and nodes n0, n1, ... that match it and have conditions."""
    api = FakeApi()
    api.put(pool_object("llm", requires=requires("llm"), **spec))
    for number in range(nodes):
        api.put(
            node_object(f"n{number}", llm(), conditions=[condition(), condition("Draining", "False", "NotRequested")])
        )
    return api


def publish(api: FakeApi, name: str, content: dict[str, Any]) -> None:
    """Store a node's report as its agent does: by a merge patch with every key."""
    api.put({**api.objects[Kind.NODE][name], "status": {**api.objects[Kind.NODE][name]["status"], "report": content}})
