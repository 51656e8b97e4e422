"""Hundreds of malformed objects on a real API server beside a valid service, with the real operator (B11, D2, D5).

The API server refuses objects that break the schema. The others delay no pool, and each has a condition.
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

OWN_TYPE = "valid"
"""A type that no malformed node has."""
OURS = {"edge-1": "Ready"}
CONNECTIONS = 2
"""Concurrent requests: so few that the API server of a small machine answers in time."""
SHARES = {Kind.NODE: 100, Kind.POOL: 100, Kind.GENERATOR: 30, Kind.SLICE: 20}
VALID: dict[Kind, Callable[[Random, str], Json]] = {
    Kind.NODE: valid_node,
    Kind.POOL: valid_pool,
    Kind.GENERATOR: valid_generator,
    Kind.SLICE: lambda rng, name: valid_slice(rng, name, rng.choice((OWN_TYPE, "x-1-valid", "absent"))),
}
EXPECTED_FAILURES = {"StaleError", "RetryableError", "UnavailableError", "RejectedError"}


def start(fleet: Fleet) -> None:
    """Start one node with one service, and the pool of its type."""
    fleet.apply(pool(OWN_TYPE, types=[{"type": OWN_TYPE}]))
    fleet.start_operator()
    fleet.start_agent("edge-1", [service("mine", OWN_TYPE)], debounce=0.2)
    fleet.wait_leading()
    wait_for("the node is in", lambda: members(fleet) == OURS)


def members(fleet: Fleet) -> dict[str, str] | None:
    """Return the valid pool's members if slices and Redis agree, else None."""
    found = fleet.get("nodepoolslices", f"{OWN_TYPE}-0") or {}
    members = {member["node"]: member["state"] for member in found.get("members") or []}
    return members if fleet.members_in_redis(OWN_TYPE) == members else None


def stop_and_start(fleet: Fleet) -> None:
    fleet.agent("edge-1", "stop", "mine")
    wait_for("the node left", lambda: members(fleet) == {})
    fleet.agent("edge-1", "start", "mine")
    wait_for("the node is back", lambda: members(fleet) == OURS)


def objects(seed: int, times: int) -> list[tuple[Kind, Json]]:
    """Return random objects, half of them within the schema, without fields that only the API server sets."""
    rng = Random(seed)  # noqa: S311 - examples, no secret.
    created = []
    for kind, share in SHARES.items():
        for number in range(times * share):
            name = f"x-{number}-valid" if number % 2 else f"x-{number}-broken"
            body = VALID[kind](rng, name) if number % 2 else broken(rng, kind, name)
            for key in ("uid", "resourceVersion", "generation", "creationTimestamp", "finalizers"):
                body["metadata"].pop(key, None)
            created.append((kind, body))
    rng.shuffle(created)
    return created


def put(fleet: Fleet, kind: Kind, body: Json) -> list[int]:
    """Create an object and write its status; return the HTTP status codes, 0 if JSON cannot encode the object."""
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


def without_condition(fleet: Fleet) -> list[tuple[str, str]]:
    """Return the pools, generators and nodes without a condition Ready or Paused."""
    found = []
    for kind in (Kind.POOL, Kind.GENERATOR, Kind.NODE):
        for item in fleet.list(kind.value):
            conditions = (item.get("status") or {}).get("conditions") or []
            if not any(c["type"] in {"Ready", "Paused"} and c["reason"] for c in conditions):
                found.append((kind.value, item["metadata"]["name"]))
    return found


def failed(fleet: Fleet) -> set[str]:
    """Return the errors of failed reconciles."""
    status, text = fleet.ask_operator("metrics")
    assert status == 200
    return {line.split('"')[1] for line in text.splitlines() if line.startswith("hotpool_failures_total{")}


def test_hundreds_of_malformed_objects_delay_no_others_and_each_has_a_condition(fleet: Fleet) -> None:
    run_malformed_objects(fleet, 1)


def run_malformed_objects(fleet: Fleet, times: int) -> None:
    """Send `times` the usual numbers of objects while a service stops and starts."""
    start(fleet)
    assert fleet.operator
    with ThreadPoolExecutor(CONNECTIONS) as pool_:
        answers = [pool_.submit(put, fleet, kind, body) for kind, body in objects(1, times)]
        stop_and_start(fleet)
        codes = Counter(code for answer in answers for code in answer.result())
    stop_and_start(fleet)
    assert codes[201] > times * sum(SHARES.values()) // 2
    assert {code for code in codes if code >= 500} == set(), codes
    wait_for("a condition on everything", lambda: not without_condition(fleet), 120)
    assert failed(fleet) <= EXPECTED_FAILURES
    assert fleet.operator.running, "the first process still runs"
    status, checks = fleet.ask_operator("readyz")
    assert status == 200, checks
    stop_and_start(fleet)
