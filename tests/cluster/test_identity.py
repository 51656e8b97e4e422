"""An agent's credential writes one node's record, and the API server sees to it (design, promise 5).

Three grounds: as the chart is installed; without the policy's binding, where what only the policy stops must pass; and
with every right by RBAC, where the policy alone must stop every write.
"""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_kind.cluster import KindCluster
from tests.cluster.attempts import ATTEMPTS, Attempt
from tests.cluster.identities import FRESH, NODE, Credential, Ground

from localfleet.fleet import Fleet

BOTH = ("inside", "outside")


@pytest.fixture(scope="module")
def grounds(kind_cluster: KindCluster, redis_address: str) -> Iterator[Callable[..., Ground]]:
    """Makes a ground in a namespace of its own."""
    made: dict[tuple[str, bool], Ground] = {}

    def make(*, leave_out: str = "", wide: bool = False) -> Ground:
        if (leave_out, wide) not in made:
            kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
            fleet = Fleet(kubeconfig, kubectl, f"identity-{uuid.uuid4().hex[:6]}", redis_address)
            fleet.install()
            ground = made[leave_out, wide] = Ground(fleet, leave_out=leave_out, wide=wide)
            if not leave_out:
                ground.wait_for_policy()
        return made[leave_out, wide]

    yield make
    for ground in made.values():
        ground.close()


def who(ground: Ground, account: str, attempt: Attempt) -> Credential:
    node = FRESH if attempt.fresh else NODE
    return ground.inside(node) if account == "inside" else ground.outside(node)


@pytest.mark.parametrize("account", BOTH)
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.what)
def test_p5_an_agent_cannot(grounds: Callable[..., Ground], attempt: Attempt, account: str) -> None:
    answer = who(grounds(), account, attempt).ask(attempt)
    assert answer.by == attempt.wall(account), answer


@pytest.mark.parametrize("account", BOTH)
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.what)
def test_p5_without_the_binding_exactly_what_the_policy_stops_passes(
    grounds: Callable[..., Ground], attempt: Attempt, account: str
) -> None:
    ground = grounds(leave_out="ValidatingAdmissionPolicyBinding")
    answer = who(ground, account, attempt).ask(attempt, dry=True)
    wall = attempt.wall(account)
    assert answer.by == ("" if wall == "policy" else wall), answer


@pytest.mark.parametrize("account", BOTH)
@pytest.mark.parametrize("attempt", [item for item in ATTEMPTS if not item.reads], ids=lambda attempt: attempt.what)
def test_p5_whatever_rbac_grants_the_policy_stops_every_write(
    grounds: Callable[..., Ground], attempt: Attempt, account: str
) -> None:
    answer = who(grounds(wide=True), account, attempt).ask(attempt, dry=True)
    assert answer.by == ("schema" if attempt.wall(account) == "schema" else "policy"), answer
