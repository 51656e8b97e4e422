"""Two operators, one writer: nothing unjustified is ever published."""

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
FLIPS, PER_SECOND = 500, 50.0
"""No stale member this long after the takeover and the last accepted report."""
REPLICAS = ("one", "two")


@pytest.fixture
def agents(fleet: Fleet) -> Iterator[SimulatedAgents]:
    with SimulatedAgents(fleet.admin, fleet.namespace, interval=15) as made:
        yield made


@pytest.fixture
def watcher(fleet: Fleet) -> Iterator[SliceWatcher]:
    with SliceWatcher(fleet.admin, fleet.namespace) as made:
        yield made


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


def storm() -> list[tuple[str, dict[str, bool]]]:
    """Flips of all types of all nodes but the stable ones, in an order that is the same each time."""
    chance = random.Random(5)  # noqa: S311 - a fixed course, no secret.
    state = {(node, type_): True for node in NODES for type_ in TYPES}
    course = []
    for _ in range(FLIPS):
        node, type_ = chance.choice(NODES), chance.choice(TYPES)
        state[node, type_] = not state[node, type_]
        course.append((node, {type_: state[node, type_]}))
    return course


def justified(change: Change, agents: SimulatedAgents) -> bool:
    """Whether the node said that it is not ready, at any time since it was sent in last and before it left."""
    told = [(at, ready[change.pool]) for at, ready in agents.reported[change.node] if at <= change.at]
    return any(not ready for _, ready in told)


def truth(agents: SimulatedAgents, type_: str) -> set[str]:
    return {node for node, reports in agents.reported.items() if reports[-1][1][type_]}


def never_unjustified(watcher: SliceWatcher, agents: SimulatedAgents) -> None:
    departures = [change for type_ in TYPES for change in watcher.departures(type_)]
    assert departures
    assert not {change.node for change in departures} & set(STABLE)
    assert all(justified(change, agents) for change in departures)


def everything_is_true(fleet: Fleet, watcher: SliceWatcher, agents: SimulatedAgents) -> bool:
    for type_ in TYPES:
        published = (watcher.members(type_), set(fleet.members(type_)), set(fleet.members_in_redis(type_) or ()))
        if any(members != truth(agents, type_) for members in published):
            return False
    return True


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_leader_that_ends_in_a_storm_loses_and_invents_no_member(
    fleet: Fleet,
    agents: SimulatedAgents,
    watcher: SliceWatcher,
    replicas: dict[str, ManagedProcess],
    end: signal.Signals,
) -> None:
    blowing = agents.report_at_rate(storm(), PER_SECOND)
    wait_for("the storm blows", lambda: sum(map(len, agents.reported.values())) > len(NODES) + FLIPS / 3)
    os.kill(replicas["one"].pid, end)
    fleet.wait_leading(name="two")
    wait_for("the storm is over", blowing.done)
    blowing.result()
    wait_for("everything is true", lambda: everything_is_true(fleet, watcher, agents), 30)
    never_unjustified(watcher, agents)
    assert watcher.terms[-1] > watcher.terms[0]
    assert watcher.terms == sorted(watcher.terms)


def test_a_leader_that_slept_writes_nothing_when_it_wakes(
    fleet: Fleet, agents: SimulatedAgents, watcher: SliceWatcher, replicas: dict[str, ManagedProcess]
) -> None:
    blowing = agents.report_at_rate(storm(), PER_SECOND)
    wait_for("the storm blows", lambda: sum(map(len, agents.reported.values())) > len(NODES) + FLIPS / 3)
    os.kill(replicas["one"].pid, signal.SIGSTOP)
    fleet.wait_leading(name="two")
    wait_for("the storm is over", blowing.done)
    blowing.result()
    terms = len(watcher.terms)
    os.kill(replicas["one"].pid, signal.SIGCONT)
    wait_for("the former leader has ended", lambda: not replicas["one"].running)
    assert replicas["one"].stop() == 1
    wait_for("everything is true", lambda: everything_is_true(fleet, watcher, agents), 30)
    never_unjustified(watcher, agents)
    assert set(watcher.terms[terms:]) <= {max(watcher.terms)}
    assert watcher.terms == sorted(watcher.terms)


def test_a_smaller_term_is_refused_by_the_api_server(
    fleet: Fleet, replicas: dict[str, ManagedProcess]
) -> None:
    assert replicas
    with pytest.raises(RuntimeError, match=re.escape("a later leader has written this slice: term cannot go back")):
        fleet.kubectl("patch", "nodepoolslice", "asr-0", "--type=merge", "-p", '{"term":0,"members":[]}')
