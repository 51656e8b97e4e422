"""Comparison of the model of the agent's world with its machine and with the stored report."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.agent_world import machine
from tests.support.agent_world.entries import CatalogueEntry
from tests.support.agent_world.machine import ServiceProcesses


@dataclass(frozen=True)
class ClusterView:
    """State in the API server: the node's report, pod → whether it is ready, and the age of the last heartbeat."""

    report: dict[str, Any]
    pods: Mapping[str, bool]
    heartbeat_seconds: float


def differences(
    entries: Mapping[str, CatalogueEntry],
    cluster: ClusterView,
    processes: Mapping[str, ServiceProcesses],
    blocked: Collection[str],
) -> list[str]:
    """Return the differences of the services. `blocked`: those whose port another process has."""
    reported = {item["id"]: item for item in cluster.report["services"]}
    if reported.keys() != entries.keys() | cluster.pods.keys():
        return [f"reported {sorted(reported)}, catalogue {sorted(entries)}, pods {sorted(cluster.pods)}"]
    found = [f"{name}: not in the catalogue, but {processes[name]} live" for name in processes.keys() - entries]
    for name, entry in entries.items():
        running = processes.get(name, ServiceProcesses())
        found += _of_entry(name, entry, reported[name], running, _expected_states(entry, blocked=name in blocked))
    ready = {name for item in cluster.report["capabilities"] if item["ready"] for name in item["services"]}
    for name, item in reported.items():
        runs = item["state"] == "Running"
        found += [f"{name}: state {item['state']}, ready {name in ready}"] * (runs != (name in ready))
        if cluster.pods.get(name, runs) != runs:
            found.append(f"pod {name}: {item['state']}, ready {cluster.pods[name]}")
    return found


def _expected_states(entry: CatalogueEntry, *, blocked: bool) -> set[str]:
    if entry.wanted:
        return {"Failed", "Starting"} if blocked or entry.hangs else {"Running"}
    # A stop does not succeed while another process has the port, or its own cannot be killed (requirement A9).
    return {"Stopped", "Failed"} if blocked or entry.left_hanging else {"Stopped"}


def _of_entry(
    name: str, entry: CatalogueEntry, reported: dict[str, Any], running: ServiceProcesses, expected: set[str]
) -> Iterator[str]:
    if reported["state"] not in expected:
        yield f"{name}: reported {reported['state']}, expected {expected}"
    if (reported["desired"] == "Running") != entry.wanted:
        yield f"{name}: reported desired {reported['desired']}, model {entry.wanted}"
    if reported["languages"] != entry.languages:
        yield f"{name}: languages {reported['languages']}, catalogue {entry.languages}"
    if "Running" not in expected:
        if running != ServiceProcesses():
            yield f"{name}: {running} live"
        return
    if running.leaders != [reported.get("pid")]:
        yield f"{name}: reported pid {reported.get('pid')}, alive {running.leaders}"
    elif machine.get(entry.port, "/") != f"v{entry.variant}" or machine.get(entry.port, "/health") is None:
        yield f"{name}: wrong response on port {entry.port}"
    if len(running.workers) != len(entry.workers):
        yield f"{name}: workers {running.workers}, expected {entry.workers}"
