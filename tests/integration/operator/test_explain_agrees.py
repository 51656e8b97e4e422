"""`why` beside the operator itself: random fleets in simulated time (requirements D8, F2).

The operator judges, writes conditions and slices; the command line reads only these. What it says must be what the
operator decided, and what the slices hold, whatever happened before: silence, mass silence, drains, stops, pauses.
"""

import asyncio
from random import Random
from typing import Any

import pytest
from tests.support.builders import H, node_object, pool_object, report, requires, service, speech
from tests.support.simulated_fleet import FakeApi, Fleet, now, operator, simulated, until

from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.core.explain.explain import MembershipState, brake_active, explain
from hotpool.core.model import CUSTOM_KINDS, Kind

NODES = [f"n{index}" for index in range(8)]
POOLS: dict[str, dict[str, Any]] = {
    "asr": {"requires": requires("asr")},
    "pairs": {"requires": {"languagePairs": {"allOf": ["zh-en", "*-ja"]}}},
    "here": {"requires": {"nodeSelector": {"matchLabels": {"site": "a"}}}},
    "dry": {"requires": requires("asr"), "mode": "DryRun"},
    "some": {"requires": {"matchAll": True}, "excludeNodes": ["n0", "n3"], "brake": {"maxSilentPercent": 80}},
    "nothing": {},
}


def content(random: Random, sequence: int) -> dict[str, Any]:
    """What a node reports next."""
    codes = random.sample(["zh", "en", "ja"], random.randint(1, 3))
    made = random.choice([speech(*codes), report(service("a", "asr")), report(), speech("zh", "en", "ja")])
    return {**made, "sequence": sequence, "leaving": random.random() < 0.1}


def change(random: Random, api: FakeApi, sequence: int) -> None:
    """One thing that a person or an agent does."""
    name = random.choice(sorted(api.objects[Kind.NODE]))
    match random.randrange(5):
        case 0 | 1:
            made = content(random, sequence)
            api.put({**api.objects[Kind.NODE][name], "status": {"report": made}})
        case 2:
            api.edit(Kind.NODE, name, {"spec": {"drain": random.random() < 0.5}})
        case 3:
            api.edit(Kind.NODE, name, {"metadata": {"labels": {"site": random.choice(["a", "b"])}}})
        case _:
            api.edit(
                Kind.POOL, "here", {"metadata": {"annotations": {"hotpool.dev/paused": random.choice(["true", "no"])}}}
            )


async def course(random: Random, fleet: Fleet) -> None:
    """Some periods in each of which a few nodes are silent and things are changed, then rest."""
    for period in range(5):
        beating = random.sample(NODES, random.randint(2, len(NODES)))
        for _ in range(random.randrange(4)):
            change(random, fleet.api, 2 + period * 10)
            await fleet.beating(random.choice([0.5, 3.0, H]), *beating)
        await fleet.beating(random.choice([2 * H, 5 * H, 8 * H]), *beating)
    await fleet.beating(12.0, *beating)  # the slow lane


async def rest(fleet: Fleet) -> None:
    """Let everything be written, at a time at which no silence takes effect."""
    await until(lambda: (due := fleet.state.next_deadline()) is None or due > now() + 3)
    await asyncio.sleep(2.5)


def read(api: FakeApi) -> FleetSnapshot:
    found = FleetSnapshot()
    for kind in CUSTOM_KINDS:
        for body in api.objects[kind].values():
            assert found.add(kind, body)
    return found


def answers_agree(fleet: Fleet) -> list[MembershipState]:
    """Compare every answer with the operator's own state and with the slices."""
    found, standings = read(fleet.api), []
    for name, spec in found.pools.items():
        subject, written = fleet.state.pools[name], fleet.api.members(name)
        for node in found.nodes:
            answer = explain(found.facts(node), spec, found.members(name).get(node))
            where = (name, node, answer)
            assert answer.verdict.state == subject.members.get(node), where
            assert answer.verdict.criterion == subject.criteria.get(node), where
            assert (answer.current.state if answer.current else None) == written.get(node), where
            assert (answer.membership is MembershipState.RETAINED) == (
                node in written and answer.verdict.state is None
            ), where
            assert answer.membership is not MembershipState.RETAINED or brake_active(spec), where
            standings.append(answer.membership)
    return standings


async def life(seed: int) -> list[MembershipState]:
    """One fleet; how its nodes stand when everything is written."""
    random = Random(seed)  # noqa: S311 - an example, no secret
    api = FakeApi()
    for name in NODES:
        api.put(node_object(name, content(random, 1), labels={"site": random.choice(["a", "b"])}))
    for name, spec in POOLS.items():
        api.put(pool_object(name, **spec))
    async with operator(api) as fleet:
        await course(random, fleet)
        api.edit(Kind.POOL, "here", {"metadata": {"annotations": None}})
        await rest(fleet)
        return answers_agree(fleet)


@pytest.mark.parametrize("seed", range(12))
@simulated
async def test_why_says_what_the_operator_decided_and_what_the_slices_hold(seed: int) -> None:
    standings = await life(seed)
    assert MembershipState.PENDING not in standings
    assert MembershipState.DRY_RUN in standings


@simulated
async def test_the_random_fleets_reach_every_standing_that_a_running_operator_leaves() -> None:
    seen = {standing for seed in range(12) for standing in await life(seed)}
    assert seen == {MembershipState.MEMBER, MembershipState.OUT, MembershipState.RETAINED, MembershipState.DRY_RUN}


@simulated
async def test_a_paused_pool_and_a_stopped_operator_are_told_apart() -> None:
    api = FakeApi()
    api.put(node_object("n0", report(service("a", "asr"))))
    api.put(pool_object("held", requires=requires("asr")))
    api.put(pool_object("late", requires=requires("asr")))
    async with operator(api) as fleet:
        await fleet.beating(3.0)
        api.edit(Kind.POOL, "held", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        await fleet.beating(3.0)
    api.put(
        {
            **api.objects[Kind.NODE]["n0"],
            "status": {**api.objects[Kind.NODE]["n0"]["status"], "report": report(sequence=2)},
        }
    )
    found = read(api)
    stands = {
        name: explain(found.facts("n0"), found.pools[name], found.members(name).get("n0")) for name in found.pools
    }
    assert {name: answer.membership for name, answer in stands.items()} == {
        "held": MembershipState.PAUSED,
        "late": MembershipState.PENDING,
    }
    assert all(answer.current and answer.current.state == "Ready" for answer in stands.values())
