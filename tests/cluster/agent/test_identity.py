"""An agent's credential can write one node's record only, which the API server enforces.

Three namespaces: as the chart is installed; without the policy's binding, where requests that only the policy refuses
must pass; and with every right by RBAC, where the policy alone must refuse every write.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_kind.cluster import KindCluster
from tests.support.attacks import ATTEMPTS, LEASES, OWN, REPORT, Attempt
from tests.support.identities import FRESH, NODE, OTHER, PROBE, Credential, IdentityNamespace

from hotpool.cli.enrollment import manifests
from localfleet.catalogue import translator
from localfleet.chart import render
from localfleet.fleet import Fleet
from localfleet.process import ManagedProcess, wait_for

BOTH = ("inside", "outside")


@pytest.fixture(scope="module")
def namespaces(kind_cluster: KindCluster, redis_address: str) -> Iterator[Callable[..., IdentityNamespace]]:
    """A function that returns a namespace of one kind, created at its first use."""
    created: dict[tuple[bool, bool], IdentityNamespace] = {}

    def make(*, bound: bool = True, wide: bool = False) -> IdentityNamespace:
        if (bound, wide) not in created:
            kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
            fleet = Fleet(kubeconfig, kubectl, f"identity-{uuid.uuid4().hex[:6]}", redis_address)
            fleet.install()
            namespace = created[bound, wide] = IdentityNamespace(fleet, wide=wide)
            namespace.wait_for_policy()
            if not bound:
                # `hotpool enroll` refuses to enroll a node where the policy is not enforced.
                _ = namespace.outside(NODE), namespace.outside(FRESH)
                namespace.delete_policy_binding()
        return created[bound, wide]

    yield make
    for namespace in created.values():
        namespace.close()


def credential_of(namespace: IdentityNamespace, account: str, attempt: Attempt) -> Credential:
    node = FRESH if attempt.fresh else NODE
    return namespace.inside(node) if account == "inside" else namespace.outside(node)


@pytest.mark.parametrize("account", BOTH)
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.id)
def test_a_forbidden_request_of_an_agent_is_refused(
    namespaces: Callable[..., IdentityNamespace], attempt: Attempt, account: str
) -> None:
    answer = credential_of(namespaces(), account, attempt).send(attempt)
    assert answer.refused_by == attempt.expected_barrier(account), answer


@pytest.mark.parametrize("account", BOTH)
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.id)
def test_without_the_binding_only_the_requests_that_the_policy_refuses_pass(
    namespaces: Callable[..., IdentityNamespace], attempt: Attempt, account: str
) -> None:
    namespace = namespaces(bound=False)
    answer = credential_of(namespace, account, attempt).send(attempt, dry=True)
    barrier = attempt.expected_barrier(account)
    assert answer.refused_by == ("" if barrier == "policy" else barrier), answer


@pytest.mark.parametrize("account", BOTH)
@pytest.mark.parametrize("attempt", [item for item in ATTEMPTS if not item.is_read], ids=lambda attempt: attempt.id)
def test_the_policy_refuses_every_write_that_rbac_allows(
    namespaces: Callable[..., IdentityNamespace], attempt: Attempt, account: str
) -> None:
    answer = credential_of(namespaces(wide=True), account, attempt).send(attempt, dry=True)
    assert answer.refused_by == ("schema" if attempt.expected_barrier(account) == "schema" else "policy"), answer


STATUS = Attempt("report", "PATCH", f"{OWN}/status", {"status": {"report": REPORT}})


def test_every_write_with_a_token_without_node_is_refused(namespaces: Callable[..., IdentityNamespace]) -> None:
    unbound = namespaces().credential("hotpool-agent", "unbound")
    answer = unbound.send(STATUS)
    assert (answer.refused_by, "names no node" in answer.text) == ("policy", True)
    assert unbound.send(Attempt("read", "GET", OWN)).status == 200


def test_a_token_bound_to_a_node_has_the_rights_of_its_pods(namespaces: Callable[..., IdentityNamespace]) -> None:
    namespace = namespaces()
    namespace.pod(OTHER)
    bound = namespace.credential("hotpool-agent", "node", "--bound-object-kind=Node", f"--bound-object-name={OTHER}")
    assert bound.send(STATUS, dry=True).refused_by == "policy"
    assert (
        bound.send(Attempt("beat", "PATCH", f"{LEASES}/hotpool-node-{{other}}", {"spec": {}}), dry=True).status == 200
    )


def test_the_node_in_a_token_is_ignored_for_an_account_of_one_node(
    namespaces: Callable[..., IdentityNamespace],
) -> None:
    """A pod of the account of edge-1, on edge-2, is the agent of edge-1."""
    namespace = namespaces(wide=True)
    namespace.outside(NODE)
    namespace.pod(OTHER, account=f"hotpool-agent-{NODE}", name="stray")
    stray = namespace.credential(
        f"hotpool-agent-{NODE}", "stray", "--bound-object-kind=Pod", "--bound-object-name=stray"
    )
    assert stray.send(STATUS, dry=True).status == 200
    other = Attempt("report", "PATCH", STATUS.path.replace("{node}", "{other}"), STATUS.body)
    assert stray.send(other, dry=True).refused_by == "policy"


def test_the_policy_ignores_accounts_of_other_names(namespaces: Callable[..., IdentityNamespace]) -> None:
    """People, the operator, and accounts with a name similar to an agent's."""
    namespace = namespaces(wide=True)
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    for name in ("hotpool-agents", "hotpool-operator-like", "my-hotpool-agent"):
        credential = namespace.credential_in(namespace.account_with(name, everything))
        wait_for("its Role counts", lambda one=credential: one.send(PROBE, dry=True).status == 200, 10)  # type: ignore[misc]


@pytest.mark.parametrize("account", BOTH)
def test_an_agents_credential_allows_all_its_work(fleet: Fleet, account: str) -> None:
    namespace = IdentityNamespace(fleet)
    namespace.wait_for_policy()
    credential = namespace.inside(NODE) if account == "inside" else namespace.outside(NODE)
    fleet.kubectl("delete", "ncap", NODE)
    agent = Agent(fleet, credential)
    fleet.start_operator()
    agent.start()
    agent.until("it reports and renews its Lease", lambda: agent.report().get("epoch") == 1 and agent.renewed())
    fleet.wait_leading()
    agent.until("the operator adds its conditions", lambda: agent.status().get("ready") == "True")
    agent.process().kill()
    agent.start()
    agent.until("a new process claims the next epoch", lambda: agent.report().get("epoch") == 2)
    fleet.kubectl("delete", "ncap", NODE)
    agent.until("its record exists again", lambda: agent.report().get("epoch") == 3)
    fleet.kubectl("delete", "lease", f"hotpool-node-{NODE}")
    agent.until("it renews its Lease again", agent.renewed)
    spec = {"drain": True, "services": [{"id": "piper", "desired": "Stopped"}]}
    people = {"metadata": {"labels": {"zone": "b"}}, "spec": spec}
    fleet.kubectl("patch", "ncap", NODE, "--type=merge", "-p", json.dumps(people))
    agent.until("it stops the service and reports it", lambda: agent.state("piper") == "Stopped")
    agent.until("it is drained", lambda: agent.reason() == "Draining")
    found = fleet.get("nodecapabilities", NODE) or {}
    assert (found["metadata"]["labels"], found["spec"]["drain"]) == ({"zone": "b"}, True)
    second = agent.start_second()
    agent.until("the second agent reports the conflict", agent.has_conflict_event)
    second.stop()
    renewed = agent.renewed()
    agent.until("it still renews its Lease", lambda: agent.renewed() != renewed)
    agent.process().stop()
    agent.until("it reports that it leaves", lambda: agent.report().get("leaving"))


class Agent:
    """A real agent of the node, and its stored objects."""

    def __init__(self, fleet: Fleet, credential: Credential) -> None:
        self._fleet = fleet
        self._credential = credential
        self._copy_kubeconfig(fleet)

    def start(self, fleet: Fleet | None = None) -> ManagedProcess:
        return (fleet or self._fleet).start_agent(NODE, translator(["zh", "en"]), interval=1, debounce=0.2)

    def process(self) -> ManagedProcess:
        return self._fleet.agents[NODE]

    def start_second(self) -> ManagedProcess:
        """Start another agent of that name, with the same credential and a state of its own."""
        other = Fleet(self._fleet.admin, self._fleet.kubectl_program, self._fleet.namespace, self._fleet.redis_url)
        self._copy_kubeconfig(other)
        return self.start(other)

    def until(self, description: str, condition: Callable[[], Any]) -> None:
        wait_for(description, condition, 60)

    def status(self) -> dict[str, Any]:
        return (self._fleet.get("nodecapabilities", NODE) or {}).get("status") or {}

    def report(self) -> dict[str, Any]:
        return self.status().get("report") or {}

    def state(self, service: str) -> str:
        return next((item["state"] for item in self.report().get("services", []) if item["id"] == service), "")

    def reason(self) -> str:
        return next((item["reason"] for item in self.status().get("conditions", []) if item["type"] == "Ready"), "")

    def renewed(self) -> Any:
        found: Any = self._fleet.leases.list_namespaced_lease(
            self._fleet.namespace, field_selector=f"metadata.name=hotpool-node-{NODE}"
        )
        return next((item.spec.renew_time for item in found.items), None)

    def has_conflict_event(self) -> bool:
        return "NodeNameTaken" in self._fleet.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")

    def _copy_kubeconfig(self, fleet: Fleet) -> None:
        shutil.copy(self._credential.kubeconfig, fleet.folder / f"hotpool-agent-{NODE}.kubeconfig")


Verbs = set[tuple[str, str, str]]


def verbs_of(role: dict[str, Any]) -> Verbs:
    """Group, resource and verb of everything that a Role allows."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_p5_agents_have_the_same_rights_inside_and_outside_and_no_account_of_the_chart_is_taken_for_one() -> None:
    documents = render("speech", {"kubeNodes": True})
    roles = {item["metadata"]["name"]: item for item in documents if item["kind"] == "Role"}
    _, outside, _ = manifests.account(NODE, "speech")
    assert verbs_of(roles["hotpool-agent"]) == verbs_of(outside)
    assert all(rule["resourceNames"] for rule in outside["rules"])
    # An account cannot grant rights that it does not have.
    assert verbs_of(outside) < verbs_of(roles["hotpool-enroller"])
    accounts = {item["metadata"]["name"] for item in documents if item["kind"] == "ServiceAccount"}
    assert "hotpool-agent" in accounts
    assert not [name for name in accounts if name.startswith("hotpool-agent-")]
