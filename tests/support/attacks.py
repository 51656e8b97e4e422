"""Forbidden requests with an agent's credential, each with the barrier that refuses it.

`inside` is the shared account of the cluster with the token of one node's pod, `outside` the account of one node.
Where RBAC allows a request, only the policy refuses it. `{node}` is the agent's own node, `{other}` another one, and
`{fresh}` a node without stored objects.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY: Final = "application/apply-patch+yaml"
JSON: Final = "application/json"

Barrier = Literal["policy", "rbac", "schema"]
CAPABILITIES: Final = "/apis/hotpool.dev/v1alpha1/namespaces/{ns}/nodecapabilities"
OWN: Final = f"{CAPABILITIES}/{{node}}"
OTHER: Final = f"{CAPABILITIES}/{{other}}"
FRESH: Final = f"{CAPABILITIES}/{{fresh}}"
HOTPOOL: Final = "/apis/hotpool.dev/v1alpha1/namespaces/{ns}"
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases"
EVENTS: Final = "/api/v1/namespaces/{ns}/events"
CORE: Final = "/api/v1/namespaces/{ns}"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}"

REPORT: Final = {
    "schemaVersion": 1,
    "agentVersion": "t",
    "instance": "i",
    "session": "s",
    "epoch": 1,
    "sequence": 1,
    "time": "t",
}
READY: Final = {"type": "Ready", "status": "True", "reason": "Forged", "lastTransitionTime": "2026-01-01T00:00:00Z"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request. `fresh`: sent by the agent of the node without stored objects."""

    id: str
    method: str
    path: str
    body: Any = None
    kind: str = MERGE
    inside: Barrier = "policy"
    outside: Barrier = "policy"
    fresh: bool = False

    def expected_barrier(self, account: str) -> Barrier:
        """Return the barrier that refuses the request of an account, `inside` or `outside`."""
        return self.inside if account == "inside" else self.outside

    @property
    def is_read(self) -> bool:
        """Return True for a read, which no policy can refuse."""
        return self.method == "GET"


def ncap(name: str, *, spec: Any = None, **metadata: Any) -> dict[str, Any]:
    body = {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodeCapability", "metadata": {"name": name, **metadata}}
    return body if spec is None else {**body, "spec": spec}


def lease(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, **metadata}}


LABEL: Final = {"labels": {"agent.hotpool.dev/lease": "true"}}
OWNERS: Final = [{"apiVersion": "v1", "kind": "Namespace", "name": "{ns}", "uid": "0"}]


def event(name: str, about: str, kind: str = "NodeCapability", **more: Any) -> dict[str, Any]:
    involved = {"apiVersion": "hotpool.dev/v1alpha1", "kind": kind, "name": about, "namespace": "{ns}"}
    metadata = {"name": name, "namespace": "{ns}", **more.pop("metadata", {})}
    whole = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": involved, "reason": "R"}
    return {**whole, "message": "m", "type": "Warning", **more}


def attempts_on_other_nodes() -> list[Attempt]:
    """Return requests on other nodes. Outside, a Role names the objects; inside, only the policy does."""
    rbac: dict[str, Any] = {"outside": "rbac"}
    both: dict[str, Any] = {"inside": "rbac", "outside": "rbac"}
    return [
        Attempt("other-report", "PATCH", f"{OTHER}/status", {"status": {"report": {**REPORT, "epoch": 9}}}, **rbac),
        Attempt("other-report-applied", "PATCH", f"{OTHER}/status", {**ncap("{other}"), "status": {}}, APPLY, **rbac),
        Attempt("other-report-put", "PUT", f"{OTHER}/status", ncap("{other}"), JSON, **both),
        Attempt("other-drain", "PATCH", OTHER, {"spec": {"drain": True}}, **rbac),
        Attempt("other-label", "PATCH", OTHER, {"metadata": {"labels": {"agent.hotpool.dev/x": "y"}}}, **rbac),
        Attempt("other-touched", "PATCH", OTHER, ncap("{other}"), APPLY, **rbac),
        Attempt("other-deleted", "DELETE", OTHER, **both),
        Attempt("third-applied", "PATCH", f"{CAPABILITIES}/third", ncap("third"), APPLY, **rbac),
        Attempt("third-posted", "POST", CAPABILITIES, ncap("third"), JSON, **rbac),
        Attempt("any-posted", "POST", CAPABILITIES, {**ncap(""), "metadata": {"generateName": "x-"}}, JSON, **rbac),
        Attempt("other-lease", "PATCH", f"{LEASES}/hotpool-node-{{other}}", {"spec": {"holderIdentity": "x"}}, **rbac),
        Attempt(
            "other-lease-put", "PUT", f"{LEASES}/hotpool-node-{{other}}", lease("hotpool-node-{other}"), JSON, **both
        ),
        Attempt(
            "third-lease", "PATCH", f"{LEASES}/hotpool-node-third", lease("hotpool-node-third", **LABEL), APPLY, **rbac
        ),
        Attempt("third-lease-posted", "POST", LEASES, lease("hotpool-node-third", **LABEL), JSON, **rbac),
        Attempt("other-lease-deleted", "DELETE", f"{LEASES}/hotpool-node-{{other}}", **both),
        Attempt(
            "other-event",
            "PATCH",
            f"{EVENTS}/{{other}}.node-name-taken",
            event("{other}.node-name-taken", "{other}"),
            APPLY,
            **rbac,
        ),
    ]


def attempts_on_own_record() -> list[Attempt]:
    """Return forbidden changes of the agent's own objects."""
    both: dict[str, Any] = {"inside": "rbac", "outside": "rbac"}
    drain = {"spec": {"drain": True}}
    remove = [{"op": "remove", "path": "/status/conditions"}]
    conditions = {"status": {"conditions": [READY]}}
    return [
        Attempt("drain-merged", "PATCH", OWN, drain),
        Attempt("drain-patched", "PATCH", OWN, [{"op": "add", "path": "/spec/drain", "value": True}], JSON_PATCH),
        Attempt("drain-applied", "PATCH", f"{OWN}?force=true", ncap("{node}", spec={"drain": True}), APPLY),
        Attempt("drain-put", "PUT", OWN, ncap("{node}", **drain), JSON, **both),
        Attempt("drain-claimed", "PATCH", f"{OWN}?force=true", ncap("{node}", spec={"drain": False}), APPLY),
        Attempt("intent", "PATCH", OWN, {"spec": {"services": [{"id": "asr", "desired": "Running"}]}}),
        Attempt("addresses", "PATCH", OWN, {"spec": {"addresses": ["10.0.0.1"]}}),
        Attempt("addresses-applied", "PATCH", OWN, ncap("{node}", spec={"addresses": ["10.0.0.1"]}), APPLY),
        Attempt("spec-removed", "PATCH", OWN, {"spec": {"services": None}}),
        Attempt("conditions-forged", "PATCH", f"{OWN}/status", conditions),
        Attempt("conditions-applied", "PATCH", f"{OWN}/status?force=true", {**ncap("{node}"), **conditions}, APPLY),
        Attempt("conditions-put", "PUT", f"{OWN}/status", {**ncap("{node}"), **conditions}, JSON, **both),
        Attempt("conditions-beside", "PATCH", f"{OWN}/status", {"status": {"report": REPORT, "conditions": [READY]}}),
        Attempt("conditions-emptied", "PATCH", f"{OWN}/status", {"status": {"conditions": []}}),
        Attempt("conditions-nulled", "PATCH", f"{OWN}/status", {"status": {"conditions": None}}),
        Attempt("conditions-removed", "PATCH", f"{OWN}/status", remove, JSON_PATCH),
        Attempt("ready-forged", "PATCH", f"{OWN}/status", {"status": {"ready": "True"}}),
        Attempt("status-nulled", "PATCH", f"{OWN}/status", {"status": None}, inside="schema", outside="schema"),
        Attempt("label", "PATCH", OWN, {"metadata": {"labels": {"zone": "b"}}}),
        Attempt("label-new", "PATCH", OWN, {"metadata": {"labels": {"hotpool.dev/pool": "x"}}}),
        Attempt("label-alike", "PATCH", OWN, {"metadata": {"labels": {"agent.hotpool.dev.evil/x": "y"}}}),
        Attempt("label-removed", "PATCH", OWN, {"metadata": {"labels": {"zone": None}}}),
        Attempt("labels-nulled", "PATCH", OWN, {"metadata": {"labels": None}}),
        Attempt("label-claimed", "PATCH", f"{OWN}?force=true", ncap("{node}", labels={"zone": "a"}), APPLY),
        Attempt("annotation", "PATCH", OWN, {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}}),
        Attempt("annotations-nulled", "PATCH", OWN, {"metadata": {"annotations": None}}),
        Attempt("owner", "PATCH", OWN, {"metadata": {"ownerReferences": OWNERS}}),
        Attempt("finalizer", "PATCH", OWN, {"metadata": {"finalizers": ["example.com/stay"]}}),
        Attempt("owners-forgotten", "PATCH", OWN, {"metadata": {"managedFields": [{}]}}),
        Attempt("deleted", "DELETE", OWN, **both),
        Attempt("all-deleted", "DELETE", CAPABILITIES, **both),
        Attempt("lease-unlabelled", "PATCH", f"{LEASES}/hotpool-node-{{node}}", {"metadata": {"labels": None}}),
        Attempt("lease-label", "PATCH", f"{LEASES}/hotpool-node-{{node}}", {"metadata": {"labels": {"a": "b"}}}),
        Attempt("lease-owner", "PATCH", f"{LEASES}/hotpool-node-{{node}}", {"metadata": {"ownerReferences": OWNERS}}),
        Attempt("lease-finalizer", "PATCH", f"{LEASES}/hotpool-node-{{node}}", {"metadata": {"finalizers": ["a.b/c"]}}),
        Attempt("lease-deleted", "DELETE", f"{LEASES}/hotpool-node-{{node}}", **both),
        Attempt("leases-deleted", "DELETE", LEASES, **both),
    ]


def attempts_to_create() -> list[Attempt]:
    """Return creations of the agent's own objects with forbidden fields."""
    its_lease, its_event = f"{LEASES}/hotpool-node-{{fresh}}", f"{EVENTS}/{{fresh}}.node-name-taken"
    name, event_name = "hotpool-node-{fresh}", "{fresh}.node-name-taken"
    intents = {"services": [{"id": "asr", "desired": "Running"}]}
    created: list[tuple[str, str, Any]] = [
        ("new-drained", FRESH, ncap("{fresh}", spec={"drain": True})),
        ("new-not-drained", FRESH, ncap("{fresh}", spec={"drain": False})),
        ("new-with-intent", FRESH, ncap("{fresh}", spec=intents)),
        ("new-with-addresses", FRESH, ncap("{fresh}", spec={"addresses": ["10.0.0.1"]})),
        ("new-labelled", FRESH, ncap("{fresh}", labels={"zone": "b"})),
        ("new-annotated", FRESH, ncap("{fresh}", annotations={"hotpool.dev/paused": "true"})),
        ("new-owned", FRESH, ncap("{fresh}", ownerReferences=OWNERS)),
        ("new-with-finalizer", FRESH, ncap("{fresh}", finalizers=["example.com/stay"])),
        ("lease-without-label", its_lease, lease(name)),
        ("lease-with-another-label", its_lease, lease(name, labels={**LABEL["labels"], "zone": "b"})),
        ("lease-labelled-false", its_lease, lease(name, labels={"agent.hotpool.dev/lease": "false"})),
        ("lease-owned", its_lease, lease(name, ownerReferences=OWNERS, **LABEL)),
        ("event-about-another", its_event, event(event_name, "{other}")),
        ("event-about-a-pool", its_event, event(event_name, "{fresh}", "NodePool")),
        ("event-related", its_event, event(event_name, "{fresh}", related={"kind": "NodePool", "name": "p"})),
        ("event-labelled", its_event, event(event_name, "{fresh}", metadata={"labels": {"zone": "b"}})),
    ]
    return [Attempt(id_, "PATCH", path, body, APPLY, fresh=True) for id_, path, body in created]


def attempts_on_other_kinds() -> list[Attempt]:
    """Return requests on objects of other kinds, and on other people's objects of the agent's kinds."""
    both: dict[str, Any] = {"inside": "rbac", "outside": "rbac"}
    rbac: dict[str, Any] = {"outside": "rbac"}
    pool = {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": "mine"}}
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    election = f"{LEASES}/hotpool-operator"
    new_event = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "{node}.node-name-taken"}}
    new_event |= {"eventTime": "2026-01-01T00:00:00.000000Z", "action": "a", "reason": "r", "type": "Normal"}
    new_event |= {
        "reportingController": "c",
        "reportingInstance": "i",
        "regarding": {"kind": "Pod", "namespace": "{ns}"},
    }
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"}}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "mine"}}
    return [
        Attempt("election", "PATCH", election, {"spec": {"holderIdentity": "me"}}, **rbac),
        Attempt("election-put", "PUT", election, lease("hotpool-operator"), JSON, **both),
        Attempt("election-deleted", "DELETE", election, **both),
        Attempt("canary", "PATCH", f"{LEASES}/hotpool-operator-canary", {"metadata": {"labels": None}}, **rbac),
        Attempt("lease-of-any-name", "POST", LEASES, lease("mine", **LABEL), JSON, **rbac),
        Attempt("pool-made", "POST", f"{HOTPOOL}/nodepools", {**pool, "spec": {}}, JSON, **both),
        Attempt("pool", "PATCH", f"{HOTPOOL}/nodepools/p", {"spec": {"minMembers": 1}}, **both),
        Attempt("pool-status", "PATCH", f"{HOTPOOL}/nodepools/p/status", {"status": {"members": 9}}, **both),
        Attempt("pool-deleted", "DELETE", f"{HOTPOOL}/nodepools/p", **both),
        Attempt("slice", "PATCH", f"{HOTPOOL}/nodepoolslices/p-0", {"members": []}, **both),
        Attempt("slice-deleted", "DELETE", f"{HOTPOOL}/nodepoolslices/p-0", **both),
        Attempt("slices-deleted", "DELETE", f"{HOTPOOL}/nodepoolslices", **both),
        Attempt("generator", "PATCH", f"{HOTPOOL}/nodepoolgenerators/g", {"metadata": {"labels": {"a": "b"}}}, **both),
        Attempt("generator-deleted", "DELETE", f"{HOTPOOL}/nodepoolgenerators/g", **both),
        Attempt("event-of-any-name", "PATCH", f"{EVENTS}/mine", event("mine", "{node}"), APPLY, **rbac),
        Attempt("event-posted", "POST", EVENTS, event("mine", "p", "NodePool"), JSON, **rbac),
        Attempt(
            "event-of-the-new-group", "POST", "/apis/events.k8s.io/v1/namespaces/{ns}/events", new_event, JSON, **both
        ),
        Attempt("secret-read", "GET", f"{CORE}/secrets/redis", **both),
        Attempt("secrets-read", "GET", f"{CORE}/secrets", **both),
        Attempt("secret-made", "POST", f"{CORE}/secrets", secret, JSON, **both),
        Attempt("secret", "PATCH", f"{CORE}/secrets/redis", {"stringData": {"password": "x"}}, **both),
        Attempt("pools-read", "GET", f"{HOTPOOL}/nodepools", **both),
        Attempt("leases-read", "GET", LEASES, **both),
        Attempt("token-of-its-account", "POST", f"{CORE}/serviceaccounts/hotpool-agent/token", token, JSON, **both),
        Attempt("token-of-another", "POST", f"{CORE}/serviceaccounts/default/token", token, JSON, **both),
        Attempt("configuration", "POST", f"{CORE}/configmaps", config, JSON, **both),
        Attempt("role", "POST", f"{RBAC}/roles", {**role, "rules": []}, JSON, **both),
        Attempt("binding-deleted", "DELETE", f"{RBAC}/rolebindings/hotpool-agent", **both),
        Attempt("pod-deleted", "DELETE", f"{CORE}/pods/agent-{{node}}", **both),
        Attempt("pod-evicted", "POST", f"{CORE}/pods/agent-{{node}}/eviction", _eviction(), JSON, **both),
    ]


def _eviction() -> dict[str, Any]:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "agent-{node}", "namespace": "{ns}"}}


ATTEMPTS: Final = [
    *attempts_on_other_nodes(),
    *attempts_on_own_record(),
    *attempts_to_create(),
    *attempts_on_other_kinds(),
]
