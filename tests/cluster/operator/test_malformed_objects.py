"""Hundreds of hostile objects on the real API server beside an honest service, with the real operator (B11, D2, D5).

The API server refuses what breaks the schema; what it lets in costs nobody else anything, and says why it has nobody.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

from kubernetes.client.exceptions import ApiException
from tests.support.builders import Json
from tests.support.fleet_objects import pool
from tests.support.malformed_objects import broken, valid_generator, valid_node, valid_pool, valid_slice

from hotpool.core.model import Kind
from localfleet.catalogue import service
from localfleet.fleet import GROUP, Fleet
from localfleet.process import wait_for

OWN_TYPE = "honest"
"""No hostile node has it."""
OURS = {"edge-1": "Ready"}
CONNECTIONS = 2
"""So few that the API server of a small machine still answers in time: what is tested is what the objects do."""
SHARES = {Kind.NODE: 100, Kind.POOL: 100, Kind.GENERATOR: 30, Kind.SLICE: 20}
VALID: dict[Kind, Callable[[Random, str], Json]] = {
    Kind.NODE: valid_node,
    Kind.POOL: valid_pool,
    Kind.GENERATOR: valid_generator,
    Kind.SLICE: lambda rng, name: valid_slice(rng, name, rng.choice((OWN_TYPE, "x-1-valid", "nobody"))),
}
EXPECTED_FAILURES = {"StaleError", "RetryableError", "RejectedError"}


def begin(fleet: Fleet) -> None:
    """Start one node with one service, and the pool of its type."""
    fleet.apply(pool(OWN_TYPE, types=[{"type": OWN_TYPE}]))
    fleet.start_operator()
    fleet.start_agent("edge-1", [service("mine", OWN_TYPE)], debounce=0.2)
    fleet.wait_leading()
    wait_for("the node is in", lambda: here(fleet) == OURS)


def here(fleet: Fleet) -> dict[str, str] | None:
    """The honest pool's members where slices and Redis agree; None while they do not."""
    found = fleet.get("nodepoolslices", f"{OWN_TYPE}-0") or {}
    members = {member["node"]: member["state"] for member in found.get("members") or []}
    return members if fleet.members_in_redis(OWN_TYPE) == members else None


def flip(fleet: Fleet) -> None:
    fleet.agent("edge-1", "stop", "mine")
    wait_for("the node left", lambda: here(fleet) == {})
    fleet.agent("edge-1", "start", "mine")
    wait_for("the node is back", lambda: here(fleet) == OURS)


def wanted(seed: int, times: int) -> list[tuple[Kind, Json]]:
    """Half of it within the schema; without what only the API server itself writes."""
    rng = Random(seed)  # noqa: S311 - examples, no secret.
    made = []
    for kind, share in SHARES.items():
        for number in range(times * share):
            name = f"x-{number}-valid" if number % 2 else f"x-{number}-broken"
            body = VALID[kind](rng, name) if number % 2 else broken(rng, kind, name)
            for key in ("uid", "resourceVersion", "generation", "creationTimestamp", "finalizers"):
                body["metadata"].pop(key, None)
            made.append((kind, body))
    rng.shuffle(made)
    return made


def put(fleet: Fleet, kind: Kind, body: Json) -> list[int]:
    """Create an object and write its status; the answers' HTTP codes, 0 where JSON cannot hold the object."""
    where = (*GROUP, fleet.namespace, kind.value)
    objects: Any = fleet.objects
    codes = []
    try:
        objects.create_namespaced_custom_object(*where, body)
        codes.append(201)
        if "status" in body:
            name, status = body["metadata"]["name"], {"status": body["status"]}
            objects.patch_namespaced_custom_object_status(*where, name, status)
            codes.append(200)
    except ApiException as error:
        codes.append(error.status)
    except ValueError:
        codes.append(0)
    return codes


def mute(fleet: Fleet) -> list[tuple[str, str]]:
    """The pools, generators and nodes on which no condition says how they are."""
    found = []
    for kind in (Kind.POOL, Kind.GENERATOR, Kind.NODE):
        for item in fleet.list(kind.value):
            conditions = (item.get("status") or {}).get("conditions") or []
            if not any(c["type"] in {"Ready", "Paused"} and c["reason"] for c in conditions):
                found.append((kind.value, item["metadata"]["name"]))
    return found


def failed(fleet: Fleet) -> set[str]:
    """The kinds of errors with which work on a key of the operator ended."""
    status, text = fleet.ask_operator("metrics")
    assert status == 200
    return {line.split('"')[1] for line in text.splitlines() if line.startswith("hotpool_failures_total{")}


def test_hundreds_of_hostile_objects_hold_up_nobody_and_each_is_explained(fleet: Fleet) -> None:
    hold_up(fleet, 1)


def hold_up(fleet: Fleet, times: int) -> None:
    """Send the objects, so many times their shares, while a service stops and starts."""
    begin(fleet)
    assert fleet.operator
    with ThreadPoolExecutor(CONNECTIONS) as room:
        answers = [room.submit(put, fleet, kind, body) for kind, body in wanted(1, times)]
        flip(fleet)
        codes = Counter(code for answer in answers for code in answer.result())
    flip(fleet)
    assert codes[201] > times * sum(SHARES.values()) // 2
    assert {code for code in codes if code >= 500} == set(), codes
    wait_for("a condition on everything", lambda: not mute(fleet), 120)
    assert failed(fleet) <= EXPECTED_FAILURES
    assert fleet.operator.running, "the very process that was started"
    assert fleet.probe("readyz") == 200
    flip(fleet)
