"""Endpoints in random scripts: what agents claim, what people write, addresses of v1 Nodes, and pools that need them.

They are added to a finished script from a seed of their own, so that its other steps do not depend on them.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

from tests.model.endpoints import ELSEWHERE, FORBIDDEN, IN_RANGE, PODS

Json = dict[str, Any]
Step = tuple[Any, ...]

_SHARE = 0.6
"""Share of the scripts with endpoints."""
_PEOPLE_SHARE = 0.08
"""Changes of `spec.addresses`, per other step."""


def with_endpoints(steps: Iterable[Step], seed: int, nodes: list[str]) -> Iterator[Step]:
    """Yield the steps, in most scripts with endpoints."""
    rng = random.Random(f"{seed} endpoints")  # noqa: S311 - a fixed script, no secret
    if rng.random() > _SHARE:
        yield from steps
        return
    if rng.random() < 0.25:
        yield ("distrust",)
    for step in steps:
        yield from _changed(step, rng)
        if rng.random() < _PEOPLE_SHARE:
            addresses = _addresses(rng) if rng.random() < 0.6 else None
            yield ("edit", "nodecapabilities", rng.choice(nodes), {"spec": {"addresses": addresses}})


def _changed(step: Step, rng: random.Random) -> Iterator[Step]:
    match step:
        case ("node", name, interval, services):
            yield ("addresses", name, _addresses(rng))
            yield ("node", name, interval, [_claiming(item, rng) for item in services])
        case ("report", name, services, refused):
            if rng.random() < 0.3:
                yield ("addresses", name, _addresses(rng))
            yield ("report", name, [_claiming(item, rng) for item in services], refused)
        case ("put", body):
            yield ("put", _needing(body, rng))
        case ("kube", name, state) if rng.random() < 0.5:
            yield ("kube", name, {**state, "addresses": _addresses(rng)})
        case _:
            yield step


def _addresses(rng: random.Random) -> list[str]:
    choice = rng.choices([IN_RANGE, ELSEWHERE, FORBIDDEN], [4, 4, 1])[0]
    return rng.sample(choice, rng.choice([1, 1, 2]))


def _claiming(service: Json, rng: random.Random) -> Json:
    match rng.choices(["node", "own", "pod", "none", "former"], [8, 2, 2, 1, 1])[0]:
        case "node":
            return {**service, "endpoint": _endpoint([], rng)}
        case "own":
            return {**service, "endpoint": _endpoint(_addresses(rng), rng)}
        case "pod":
            pod = PODS[rng.choice(list(PODS))]
            uid = pod["metadata"]["uid"] if rng.random() < 0.8 else "uid-of-another"
            addresses = [pod["status"]["podIPs"][0]["ip"]] if rng.random() < 0.8 else _addresses(rng)
            claimed = {"namespace": "fleet", "name": pod["metadata"]["name"], "uid": uid}
            return {**service, "endpoint": _endpoint(addresses, rng), "pod": claimed}
        case "none":
            return {**service, "endpoint": None, "endpointReason": "LoopbackOnly"}
        case _:
            return service


def _endpoint(addresses: list[str], rng: random.Random) -> Json:
    return {"addresses": addresses, "port": rng.choice([6007, 6008]), "appProtocol": None}


def _needing(body: Json, rng: random.Random) -> Json:
    """Return a pool, or a generator's pools, that sometimes require endpoints."""
    spec = body["spec"]
    requires = (spec.get("template", {}).get("spec", {}) if "template" in spec else spec).get("requires") or {}
    if requires.get("types") and rng.random() < 0.5:
        requires = {**requires, "endpoint": "Required"}
        if "template" in spec:
            template = {**spec["template"], "spec": {**spec["template"]["spec"], "requires": requires}}
            return {**body, "spec": {**spec, "template": template}}
        return {**body, "spec": {**spec, "requires": requires}}
    return body
