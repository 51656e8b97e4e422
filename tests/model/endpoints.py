"""The oracle of endpoints: which claimed addresses of a fleet clients may use (requirement B13).

Naive and pure, over wire objects: the addresses of scripts are few, and what each of them is, is written down here. It
shares no code with `hotpool.core`. Each result is computed from all nodes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.model.membership import counted_services

Json = dict[str, Any]
Place = tuple[str, int]

IN_RANGE = ("10.0.1.1", "10.0.1.2", "fd00::1")
"""Addresses in the allowed ranges."""
ELSEWHERE = ("192.0.2.1", "192.0.2.2", "2001:db8::1")
FORBIDDEN = ("127.0.0.1", "169.254.169.254", "10.9.0.1", "10.96.0.5", "64:ff9b::7f00:1")
"""Addresses that are never allowed, some in denied ranges or in that of Services."""
API_SERVER = ("192.0.2.2", 6008)
ALLOWED_CIDRS, DENIED_CIDRS, SERVICE_CIDRS = ("10.0.0.0/8", "fd00::/8"), ("10.9.0.0/16",), ("10.96.0.0/12",)
PODS: dict[str, Json] = {
    f"fleet/{name}": {
        "metadata": {"name": name, "namespace": "fleet", "uid": f"uid-{name}"},
        "spec": {"nodeName": node},
        "status": {"phase": phase, "podIPs": [{"ip": ip}]},
    }
    for name, node, ip, phase in (
        ("p0", "n0", "192.0.2.1", "Running"),
        ("p1", "n1", "10.0.1.1", "Running"),
        ("p2", "n2", "192.0.2.2", "Failed"),
    )
}
"""Pods of every script. They never change, because the operator reads a pod only when a claim changes."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """One node, as far as its claims depend on it."""

    body: Json
    kube: Json | None
    alive: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """Usable addresses and vouched ones of each service, and the places that are not allowed or claimed by others."""

    usable: dict[str, tuple[int, list[str], list[str]]]
    not_allowed: set[tuple[str, str, int]]
    conflicts: set[tuple[str, str, int]]


@dataclass(frozen=True, slots=True)
class _Claim:
    service: str
    place: Place
    trust: int
    """3: people, the v1 Node or a pod vouch for it; 2: a range; 1: only the agent."""
    allowed: bool


def endpoints(nodes: Mapping[str, Claimant], *, trust_agents: bool) -> dict[str, Outcome]:
    """Return what each node gets of its claims."""
    claims = {name: list(_claims(name, node, trust_agents=trust_agents)) for name, node in nodes.items()}
    rights: dict[Place, dict[str, tuple[int, bool]]] = {}
    for name, found in claims.items():
        for claim in found:
            if claim.allowed:
                right = (claim.trust, nodes[name].alive)
                held = rights.setdefault(claim.place, {})
                held[name] = max(held.get(name, right), right)
    return {name: _outcome(name, found, rights) for name, found in claims.items()}


def _outcome(name: str, claims: list[_Claim], rights: Mapping[Place, Mapping[str, tuple[int, bool]]]) -> Outcome:
    result = Outcome({}, set(), set())
    for claim in claims:
        address, port = claim.place
        others = [right for other, right in rights.get(claim.place, {}).items() if other != name]
        if not claim.allowed:
            result.not_allowed.add((claim.service, *claim.place))
        elif any(right >= rights[claim.place][name] for right in others):
            result.conflicts.add((claim.service, *claim.place))
        else:
            _, usable, vouched = result.usable.setdefault(claim.service, (port, [], []))
            usable.append(address)
            vouched += [address] if claim.trust > 1 else []
    return result


def _claims(name: str, node: Claimant, *, trust_agents: bool) -> Iterator[_Claim]:
    report = (node.body.get("status") or {}).get("report")
    if not report or report.get("leaving"):
        return
    people = (node.body.get("spec") or {}).get("addresses") or []
    for service in counted_services(report):
        endpoint, pod = service.get("endpoint"), service.get("pod")
        if not endpoint:
            continue
        of_pod = bool(pod and endpoint["addresses"])
        found = endpoint["addresses"] or [item["ip"] for item in report.get("addresses") or ()]
        for address in dict.fromkeys(found if of_pod or not people else people):
            trust = 3 if address in people or _is_of(node.kube, address) or _has_pod(name, pod, address) else 1
            trust = 2 if trust == 1 and address in (*IN_RANGE, "10.9.0.1", "10.96.0.5") else trust
            place = (address, endpoint["port"])
            allowed = address not in FORBIDDEN and place != API_SERVER and (trust_agents or trust > 1)
            yield _Claim(service["id"], place, trust, allowed)


def _is_of(kube: Json | None, address: str) -> bool:
    found = ((kube or {}).get("status") or {}).get("addresses") or []
    return any(item["address"] == address for item in found if item["type"] in {"InternalIP", "ExternalIP"})


def _has_pod(node: str, claimed: Json | None, address: str) -> bool:
    pod = PODS.get(f"{claimed['namespace']}/{claimed['name']}") if claimed else None
    if not claimed or not pod or pod["status"]["phase"] != "Running":
        return False
    same = (pod["metadata"]["uid"], pod["spec"]["nodeName"]) == (claimed["uid"], node)
    return same and any(item["ip"] == address for item in pod["status"]["podIPs"])
