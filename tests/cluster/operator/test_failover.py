"""Two operators, one writer: no member is removed or added without a report."""

import os
import random
import re
import signal
from collections.abc import Iterator

import pytest
from tests.support.fleet_objects import pool
from tests.support.simulated_agents import SimulatedAgents
from tests.support.slice_watcher import Change, SliceWatcher

from localfleet.fleet import Fleet
from localfleet.process import ManagedProcess, wait_for

NODES = [f"edge-{number}" for number in range(30)]
STABLE = [f"rock-{number}" for number in range(10)]
TYPES = ("asr", "llm")
CHANGES, PER_SECOND = 500, 50.0


@pytest.fixture
def agents(fleet: Fleet) -> Iterator[SimulatedAgents]:
    with SimulatedAgents(fleet.admin, fleet.namespace, interval=15) as running:
        yield running


@pytest.fixture
def watcher(fleet: Fleet) -> Iterator[SliceWatcher]:
    with SliceWatcher(fleet.admin, fleet.namespace) as running:
        yield running


@pytest.fixture
def replicas(fleet: Fleet, agents: SimulatedAgents) -> dict[str, ManagedProcess]:
    """Two operators, of which the first leads and has published everything."""
    fleet.apply(*(pool(type_, types=[{"type": type_}]) for type_ in TYPES))
    agents.create([*NODES, *STABLE], TYPES)
    started = {"one": fleet.start_operator("one")}
    fleet.wait_leading(name="one")
    started["two"] = fleet.start_operator("two")
    wait_for("the other is warm", lambda: "[+] listed" in fleet.ask_operator("readyz", "two")[1])
    wait_for("all are in", lambda: all(len(fleet.members(type_)) == len(NODES + STABLE) for type_ in TYPES))
    return started


def changes() -> list[tuple[str, dict[str, bool]]]:
    """Return changes of all types of all nodes but the stable ones, in a fixed random order."""
    chance = random.Random(5)  # noqa: S311 - a fixed order, no secret.
    state = {(node, type_): True for node in NODES for type_ in TYPES}
    script = []
    for _ in range(CHANGES):
        node, type_ = chance.choice(NODES), chance.choice(TYPES)
        state[node, type_] = not state[node, type_]
        script.append((node, {type_: state[node, type_]}))
    return script


def justified(change: Change, agents: SimulatedAgents) -> bool:
    """Return True if the node reported the type as not ready before it left."""
    return any(not ready[change.pool] for at, ready in agents.reported[change.node] if at <= change.at)


def ready_nodes(agents: SimulatedAgents, type_: str) -> set[str]:
    return {node for node, reports in agents.reported.items() if reports[-1][1][type_]}


def check_departures(watcher: SliceWatcher, agents: SimulatedAgents) -> None:
    departures = [change for type_ in TYPES for change in watcher.departures(type_)]
    assert departures
    assert not {change.node for change in departures} & set(STABLE)
    assert all(justified(change, agents) for change in departures)


def all_agree(fleet: Fleet, watcher: SliceWatcher, agents: SimulatedAgents) -> bool:
    for type_ in TYPES:
        published = (watcher.members(type_), set(fleet.members(type_)), set(fleet.members_in_redis(type_) or ()))
        if any(members != ready_nodes(agents, type_) for members in published):
            return False
    return True


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_leader_that_ends_during_many_changes_loses_and_invents_no_member(
    fleet: Fleet,
    agents: SimulatedAgents,
    watcher: SliceWatcher,
    replicas: dict[str, ManagedProcess],
    end: signal.Signals,
) -> None:
    reporting = agents.report_at_rate(changes(), PER_SECOND)
    wait_for("a third is reported", lambda: sum(map(len, agents.reported.values())) > len(NODES) + CHANGES / 3)
    os.kill(replicas["one"].pid, end)
    fleet.wait_leading(name="two")
    wait_for("all changes are reported", reporting.done)
    reporting.result()
    wait_for("slices and Redis agree with the reports", lambda: all_agree(fleet, watcher, agents), 30)
    check_departures(watcher, agents)
    assert watcher.terms[-1] > watcher.terms[0]
    assert watcher.terms == sorted(watcher.terms)


def test_a_suspended_leader_writes_nothing_when_it_resumes(
    fleet: Fleet, agents: SimulatedAgents, watcher: SliceWatcher, replicas: dict[str, ManagedProcess]
) -> None:
    reporting = agents.report_at_rate(changes(), PER_SECOND)
    wait_for("a third is reported", lambda: sum(map(len, agents.reported.values())) > len(NODES) + CHANGES / 3)
    os.kill(replicas["one"].pid, signal.SIGSTOP)
    fleet.wait_leading(name="two")
    wait_for("all changes are reported", reporting.done)
    reporting.result()
    terms = len(watcher.terms)
    os.kill(replicas["one"].pid, signal.SIGCONT)
    wait_for("the former leader follows", lambda: "[+] following" in fleet.ask_operator("readyz", "one")[1])
    wait_for("slices and Redis agree with the reports", lambda: all_agree(fleet, watcher, agents), 30)
    check_departures(watcher, agents)
    assert set(watcher.terms[terms:]) <= {max(watcher.terms)}
    assert watcher.terms == sorted(watcher.terms)


def test_a_smaller_term_is_refused_by_the_api_server(fleet: Fleet, replicas: dict[str, ManagedProcess]) -> None:
    assert replicas
    with pytest.raises(RuntimeError, match=re.escape("a later leader has written this slice: term cannot go back")):
        fleet.kubectl("patch", "nodepoolslice", "asr-0", "--type=merge", "-p", '{"term":0,"members":[]}')
