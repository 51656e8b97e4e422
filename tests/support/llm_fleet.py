"""A fleet of a few nodes that serve an LLM, and what their agents report, for the fakes of this folder."""

from typing import Any

from tests.support.builders import condition, node_object, pool_object, report, requires, service, stopped
from tests.support.simulated_fleet import FakeApi

from hotpool.core.model import Kind


def llm(sequence: int = 1, **more: Any) -> dict[str, Any]:
    """A report of a service that runs."""
    return report(service("q", "llm"), sequence=sequence, **more)


def no_llm(sequence: int, **more: Any) -> dict[str, Any]:
    """A report of the service as stopped."""
    return report(stopped("q", "llm"), sequence=sequence, **more)


def small(nodes: int = 2, **spec: Any) -> FakeApi:
    """A pool `llm`, and nodes n0, n1, ... that qualify and of which the conditions are stored."""
    api = FakeApi()
    api.put(pool_object("llm", requires=requires("llm"), **spec))
    for number in range(nodes):
        api.put(
            node_object(f"n{number}", llm(), conditions=[condition(), condition("Draining", "False", "NotRequested")])
        )
    return api


def publish(api: FakeApi, name: str, content: dict[str, Any]) -> None:
    """The agent's whole report, which is a merge patch with every key."""
    api.put({**api.objects[Kind.NODE][name], "status": {**api.objects[Kind.NODE][name]["status"], "report": content}})
