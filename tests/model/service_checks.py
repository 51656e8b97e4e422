"""Comparison of the stored Services and EndpointSlices with the oracle (requirement D12)."""

from typing import TYPE_CHECKING, Any

from tests.model.expected_state import condition, is_paused
from tests.model.services import Seen, expected, holders, wanted_name
from tests.support.service_fleet import SERVICES, SLICES

from hotpool.core.model import Kind

if TYPE_CHECKING:
    from tests.model.simulation import Simulation

Json = dict[str, Any]


def service_mismatch(simulation: "Simulation") -> str | None:
    """Return the first difference, or None. A paused pool keeps what it has, and the names that it holds or wants."""
    pools = simulation.api.objects[Kind.POOL]
    paused = {name for name, body in pools.items() if is_paused(body)}
    kept = {wanted_name(pools[name]) for name in paused}
    kept |= {name for name, item in simulation.api.core[SERVICES].items() if _pool_of(item) in paused}
    holding = holders(pools)
    for name, body in pools.items():
        service = wanted_name(body)
        if name in paused or service in kept:
            continue
        has = service and holding[service] == name and not _is_foreign(simulation.api.core[SERVICES].get(service), body)
        found = _service(simulation, name, body, service if has else None)
        if found:
            return f"{name}: {found}"
    strays = [
        name
        for name, item in simulation.api.core[SLICES].items()
        if _service_of(item) not in simulation.api.core[SERVICES]
    ]
    return f"EndpointSlices without a Service: {strays}" if strays else None


def _service(simulation: "Simulation", pool: str, body: Json, service: str | None) -> str | None:
    """Compare one pool. `service`: name of the Service that it has."""
    stored = simulation.api.core[SERVICES]
    surplus = [name for name, item in stored.items() if _pool_of(item) == pool and name != service]
    if surplus:
        return f"surplus Services {surplus}"
    taken = bool((condition(body, "ServiceNameTaken") or {"status": "False"})["status"] == "True")
    if taken != (service is None and wanted_name(body) is not None):
        return f"ServiceNameTaken is {taken}"
    if service is None:
        return None
    if service not in stored:
        return f"no Service {service}"
    spec, wanted = stored[service]["spec"], body["spec"]["service"]
    headless = wanted.get("clusterIP") == "None"
    if spec.get("selector") or (spec.get("clusterIP") == "None") != headless:
        return f"Service {spec}"
    if {port["name"]: port["port"] for port in spec["ports"]} != {p["type"]: p["port"] for p in wanted["ports"]}:
        return f"ports {spec['ports']}"
    nodes, outcomes = simulation.api.objects[Kind.NODE], simulation.expected.endpoints()
    must = expected(body, simulation.api.members(pool), nodes, outcomes)
    seen = _seen(simulation, service)
    return None if seen == must else f"clients of {service} see {seen}, not {must}"


def _is_foreign(service: Json | None, pool: Json) -> bool:
    """Return True if a Service has lost the operator's label while another pool owned it: then it is never touched."""
    if service is None or _pool_of(service) is not None:
        return False
    return all(owner["uid"] != pool["metadata"]["uid"] for owner in service["metadata"].get("ownerReferences") or ())


def _seen(simulation: "Simulation", service: str) -> Seen | str:
    """Return what clients see, or a text if an address is there twice."""
    found: Seen = {}
    for item in simulation.api.core[SLICES].values():
        if _service_of(item) == service:
            (port,) = item["ports"]
            for endpoint in item["endpoints"]:
                place = (port["name"], port["port"], endpoint["addresses"][0])
                if place in found:
                    return f"{place} twice"
                c = endpoint["conditions"]
                found[place] = (c["ready"], c["serving"], c["terminating"])
    return found


def _pool_of(item: Json) -> str | None:
    label: str | None = (item["metadata"].get("labels") or {}).get("service.hotpool.dev/pool")
    return label


def _service_of(item: Json) -> str | None:
    label: str | None = (item["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
    return label
