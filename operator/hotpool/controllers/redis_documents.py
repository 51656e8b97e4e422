"""Documents of pools and nodes for Redis, built from the cache. Must not do I/O."""

from collections.abc import Mapping

from hotpool.core.capacity import limits_of
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Liveness, NodeView, Pool, TypeState
from hotpool.core.planning.pool_plan import PoolMembers
from hotpool.core.pool_membership import PoolMembership
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints, encode_services


def pool_document(
    pool: Pool, members: PoolMembers, services: PoolServices, former: PoolDocument | None
) -> PoolDocument:
    """Return the document of a pool. `former`: its previous document, from which the digest is computed."""
    generated, published = pool.spec.generated, members.published
    others = {node: state for node, state in published.items() if state != "Ready"}
    return PoolDocument(
        name=pool.meta.name,
        uid=pool.meta.uid,
        generator=generated.by if generated else None,
        key=generated.key if generated else None,
        ready=frozenset(published.keys() - others if others else published),
        suspect=frozenset(node for node, state in others.items() if state == "Suspect"),
        draining=frozenset(node for node, state in others.items() if state == "Draining"),
        former=former,
        services=services,
    )


def pool_services(membership: PoolMembership, members: PoolMembers, cache: ClusterCache) -> PoolServices:
    """Return the services of which picks of a pool answer the endpoints."""
    required, published, found = membership.services, members.published, {}
    if required.active:
        found = {name: services for name, services in membership.exceptions.items() if name in published}
        # Members that only the brake or a pause retains do not match the pool.
        retained = () if published is membership.members else published.keys() - membership.members.keys()
        for name in retained:
            if (services := _services_meeting(membership, name, cache)) is not None:
                found[name] = services
    return PoolServices(
        types=required.types,
        filtered=required.active,
        endpoint_required=membership.spec.requires.endpoint == "Required",
        exceptions={name: encode_services(services) for name, services in found.items()},
    )


def service_exceptions(
    node: str, accepted: Mapping[str, tuple[int, PoolDocument]], cache: ClusterCache
) -> dict[str, str]:
    """Return pool → services of a node that meet it, for each pool that not all of them meet.

    `accepted`: documents that Redis holds. A node that no longer matches a pool stays in its document for a moment; the
    document of a former leader may have it, too.
    """
    found: dict[str, str] = {}
    for name, membership in cache.pools.items():
        if membership.services.active and (node in membership.members or _may_list(accepted.get(name), node)):
            services = _services_meeting(membership, node, cache)
            if services is not None:
                found[name] = encode_services(services)
    return found


def _may_list(accepted: tuple[int, PoolDocument] | None, node: str) -> bool:
    return accepted is None or any(node in members for members in accepted[1].members)


def _services_meeting(membership: PoolMembership, node: str, cache: ClusterCache) -> tuple[str, ...] | None:
    """Return the services of a node that meet a pool, or None if all of the required types do."""
    if node in membership.members:
        return membership.exceptions.get(node)
    tracker = cache.nodes.get(node)
    report = tracker.view.node.report if tracker else None
    return membership.services.exceptions(report, member=False) if report else None


def node_document(view: NodeView, types: Mapping[str, TypeState] | None, *, endpoints: bool) -> NodeDocument | None:
    """Return the document of a node, None for none. `types`: None if no pool lists the node but by the brake.

    The brake retains a silent node as a Suspect member, so Redis keeps its endpoints and limits, without its types.
    `endpoints`: False if neither is written.
    """
    report, text = view.node.report, encode_endpoints(view.endpoints.values(), limits_of(view)) if endpoints else ""
    silent = view.liveness is Liveness.OFFLINE and report is not None and not report.leaving and not view.shutdown
    if types is None and not (text and silent):
        return None
    states = sorted(types.items()) if types else ()
    capabilities = tuple((type_, state.ready, state.reason, state.services) for type_, state in states)
    return NodeDocument(view.node.meta.name, capabilities, text)
