"""`why` compared with the operator on random fleets in simulated time (requirements D8, F2).

The operator matches, and writes conditions and slices, which are all that the command line reads. Its answer must be
the operator's decision and the content of the slices after any silence, mass silence, drain, stop or pause.
"""

import asyncio
from ipaddress import ip_network
from random import Random
from typing import Any

import pytest
from tests.support.builders import H, node_object, pool_object, report, requires, service, speech
from tests.support.simulated_fleet import FakeApi, Fleet, now, operator, simulated, until

from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.explain.explain import MembershipState, brake_active, explain
from hotpool.core.model import CUSTOM_KINDS, Kind, NodeView

ADDRESSES = ("10.0.0.1", "10.0.0.2", "192.0.2.1", "169.254.169.254", "10.1.0.1", "2001:db8::1")
POLICIES = (
    AddressPolicy(denied_cidrs=(ip_network("10.1.0.0/16"),), allowed_cidrs=(ip_network("10.0.0.0/8"),)),
    AddressPolicy(trust_agents=False, allowed_cidrs=(ip_network("10.0.0.0/8"),)),
    AddressPolicy(),
)
NODES = [f"n{index}" for index in range(8)]
POOLS: dict[str, dict[str, Any]] = {
    "asr": {"requires": requires("asr")},
    "pairs": {"requires": {"languagePairs": {"allOf": ["zh-en", "*-ja"]}}},
    "here": {"requires": {"nodeSelector": {"matchLabels": {"site": "a"}}}},
    "reachable": {"requires": requires("asr", endpoint="Required")},
    "dry": {"requires": requires("asr"), "mode": "DryRun"},
    "some": {"requires": {"matchAll": True}, "excludeNodes": ["n0", "n3"], "brake": {"maxSilentPercent": 80}},
    "nothing": {},
}


def claim(random: Random) -> dict[str, Any]:
    """Return the endpoint of a service in a random report; none as of a former agent."""
    own = random.sample(ADDRESSES, random.choice([0, 0, 0, 1]))
    endpoint = {"addresses": own, "port": 6007 + random.randrange(2), "appProtocol": None}
    reasons = ("LoopbackOnly", "Local", "NoPort", "NoAddress", "Unchecked")
    lacking = {"endpoint": None, "endpointReason": random.choice(reasons)}
    claims: list[dict[str, Any]] = [{"endpoint": endpoint}, lacking, {}]
    return random.choices(claims, [6, 1, 1])[0]


def content(random: Random, sequence: int) -> dict[str, Any]:
    """Return a random report."""
    codes = random.sample(["zh", "en", "ja"], random.randint(1, 3))
    chosen = random.choice([speech(*codes), report(service("a", "asr")), report(), speech("zh", "en", "ja")])
    services = [item | claim(random) for item in chosen["services"]]
    addresses = [{"ip": ip, "source": "Route"} for ip in random.sample(ADDRESSES, random.randrange(3))]
    return {
        **chosen,
        "services": services,
        "addresses": addresses,
        "sequence": sequence,
        "leaving": random.random() < 0.1,
        "draining": random.random() < 0.2,
    }


def change(random: Random, api: FakeApi, sequence: int) -> None:
    """Make one random change of a person or an agent."""
    name = random.choice(sorted(api.objects[Kind.NODE]))
    match random.randrange(6):
        case 5:
            api.edit(Kind.NODE, name, {"spec": {"addresses": random.sample(ADDRESSES, random.randrange(3)) or None}})
        case 0 | 1:
            api.put({**api.objects[Kind.NODE][name], "status": {"report": content(random, sequence)}})
        case 2:
            api.edit(Kind.NODE, name, {"spec": {"drain": random.random() < 0.5}})
        case 3:
            api.edit(Kind.NODE, name, {"metadata": {"labels": {"site": random.choice(["a", "b"])}}})
        case _:
            api.edit(
                Kind.POOL, "here", {"metadata": {"annotations": {"hotpool.dev/paused": random.choice(["true", "no"])}}}
            )


async def random_changes(random: Random, fleet: Fleet) -> None:
    """Run some periods, each with a few silent nodes and changes."""
    for period in range(5):
        beating = random.sample(NODES, random.randint(2, len(NODES)))
        for _ in range(random.randrange(4)):
            change(random, fleet.api, 2 + period * 10)
            await fleet.beating(random.choice([0.5, 3.0, H]), *beating)
        await fleet.beating(random.choice([2 * H, 5 * H, 8 * H]), *beating)
    await fleet.beating(12.0, *beating)  # until delayed statuses are written


async def settle(fleet: Fleet) -> None:
    """Wait until everything is written, at a time without a transition by silence."""
    await until(lambda: (due := fleet.cache.next_deadline()) is None or due > now() + 3)
    await asyncio.sleep(2.5)


def read(api: FakeApi) -> FleetSnapshot:
    snapshot = FleetSnapshot()
    for kind in CUSTOM_KINDS:
        for body in api.objects[kind].values():
            assert snapshot.add(kind, body)
    return snapshot


def check_answers(fleet: Fleet) -> list[MembershipState]:
    """Compare every answer with the operator's cache and with the slices; return the memberships."""
    snapshot, memberships = read(fleet.api), []
    for name, spec in snapshot.pools.items():
        subject, written = fleet.cache.pools[name], fleet.api.members(name)
        for node in snapshot.nodes:
            answer = explain(snapshot.facts(node), spec, snapshot.members(name).get(node))
            where = (name, node, answer)
            assert answer.verdict.state == subject.members.get(node), where
            assert answer.verdict.criterion == subject.criteria.get(node), where
            assert addresses_of(snapshot.facts(node).view) == addresses_of(fleet.cache.nodes[node].view), where
            assert (answer.current.state if answer.current else None) == written.get(node), where
            assert (answer.membership is MembershipState.RETAINED) == (
                node in written and answer.verdict.state is None
            ), where
            assert answer.membership is not MembershipState.RETAINED or brake_active(spec), where
            memberships.append(answer.membership)
    return memberships


def addresses_of(view: NodeView) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {service: (found.port, found.addresses) for service, found in view.endpoints.items()}


async def run_fleet(seed: int) -> list[MembershipState]:
    """Run a random fleet; return the memberships of its nodes when everything is written."""
    random = Random(seed)  # noqa: S311 - an example, no secret
    api = FakeApi()
    for name in NODES:
        api.put(node_object(name, content(random, 1), labels={"site": random.choice(["a", "b"])}))
    for name, spec in POOLS.items():
        api.put(pool_object(name, **spec))
    async with operator(api, policy=POLICIES[seed % 3]) as fleet:
        await random_changes(random, fleet)
        api.edit(Kind.POOL, "here", {"metadata": {"annotations": None}})
        await settle(fleet)
        return check_answers(fleet)


@pytest.mark.parametrize("seed", range(12))
@simulated
async def test_why_agrees_with_the_operator_and_the_slices(seed: int) -> None:
    memberships = await run_fleet(seed)
    assert MembershipState.PENDING not in memberships
    assert MembershipState.DRY_RUN in memberships


@simulated
async def test_the_random_fleets_reach_every_membership_state_of_a_running_operator() -> None:
    seen = {membership for seed in range(12) for membership in await run_fleet(seed)}
    assert seen == {MembershipState.MEMBER, MembershipState.OUT, MembershipState.RETAINED, MembershipState.DRY_RUN}


@simulated
async def test_why_distinguishes_a_paused_pool_from_a_stopped_operator() -> None:
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
    snapshot = read(api)
    answers = {
        name: explain(snapshot.facts("n0"), pool, snapshot.members(name).get("n0"))
        for name, pool in snapshot.pools.items()
    }
    assert {name: answer.membership for name, answer in answers.items()} == {
        "held": MembershipState.PAUSED,
        "late": MembershipState.PENDING,
    }
    assert all(answer.current and answer.current.state == "Ready" for answer in answers.values())
