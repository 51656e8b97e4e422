"""Prometheus metrics of the operator. No label may grow with the number of nodes."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from hotpool.common.function_counter import FunctionCounter
from hotpool.common.lossy_stream import lost_lines
from hotpool.core.model import Kind

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_STAGES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

WRITES: Final = Counter(
    "hotpool_writes", "Writes by target (sink), verb and result", ["sink", "verb", "result"], registry=REGISTRY
)
APPLY: Final = Histogram(
    "hotpool_apply_seconds",
    "Time from the due time of a key to the end of its writes",
    ["kind"],
    buckets=_STAGES,
    registry=REGISTRY,
)
HEARTBEATS: Final = Counter("hotpool_heartbeats", "Lease renewals received", registry=REGISTRY)
REJECTED: Final = Counter("hotpool_rejected_objects", "Invalid objects, by kind", ["kind"], registry=REGISTRY)
TRANSITIONS: Final = Counter(
    "hotpool_node_transitions", "Changes of the condition Ready of nodes", ["reason"], registry=REGISTRY
)
FAILURES: Final = Counter("hotpool_failures", "Reconciliations that failed, by error", ["error"], registry=REGISTRY)
NODES: Final = Gauge("hotpool_nodes", "Nodes known", registry=REGISTRY)
POOLS: Final = Gauge("hotpool_pools", "Pools known", registry=REGISTRY)
LEADER: Final = Gauge("hotpool_leader", "1 while this process may write", registry=REGISTRY)
TERM: Final = Gauge("hotpool_term", "Term of leadership", registry=REGISTRY)
TARGET_UP: Final = Gauge(
    "hotpool_target_up", "1 while a target holds the desired state, as far as is known", ["target"], registry=REGISTRY
)
REDIS_FAILURES: Final = Counter(
    "hotpool_redis_failures",
    "Failed calls of Redis: away, slow, full, replica, loading, password, denied, shared, unclaimed, …",
    ["reason"],
    registry=REGISTRY,
)
POOL_WRITES: Final = Counter(
    "hotpool_redis_pool_writes",
    "Pools written to Redis: change (the difference from the former document), whole",
    ["how"],
    registry=REGISTRY,
)
ENDPOINTS_ENABLED: Final = Gauge(
    "hotpool_redis_endpoints_enabled",
    "1 while endpoints are written to Redis, 0 if its ACL denies a right on their keys",
    registry=REGISTRY,
)
FAILURES_ENABLED: Final = Gauge(
    "hotpool_redis_failures_enabled",
    "1 while failure reports of dispatchers are read from Redis, 0 if its ACL denies a right on their keys",
    registry=REGISTRY,
)
WAITING_ENABLED: Final = Gauge(
    "hotpool_redis_waiting_enabled",
    "1 while changes of pools and nodes wake waiting picks, 0 if the ACL of Redis denies a right on their keys",
    registry=REGISTRY,
)
WAITERS: Final = Gauge(
    "hotpool_pool_waiters",
    "Picks that wait for a node of the pool, as of the last 15 s, of pools that had any",
    ["pool"],
    registry=REGISTRY,
)
EJECTED_SERVICES: Final = Gauge(
    "hotpool_pool_ejected_services",
    "Services of Ready members that dispatchers reported as failing and pick last, of pools that had any",
    ["pool"],
    registry=REGISTRY,
)
SLOTS_ENABLED: Final = Gauge(
    "hotpool_redis_slots_enabled",
    "1 while slots in use are read from Redis, 0 if its ACL denies a right on their keys",
    registry=REGISTRY,
)
POOL_SLOTS_IN_USE: Final = Gauge(
    "hotpool_pool_slots_in_use",
    "Slots that reservations hold on Ready and Suspect members, of pools with limits or reservations",
    ["pool", "type"],
    registry=REGISTRY,
)
POOL_SLOTS: Final = Gauge(
    "hotpool_pool_slots",
    "Slots of Ready and Suspect members together, of pools of which each member has a limit",
    ["pool", "type"],
    registry=REGISTRY,
)
REFUSED_RESERVATIONS: Final = Counter(
    "hotpool_pool_refused_reservations",
    "Reservations that found no node: Full, NoEndpoint, AllExcluded, OnlyDraining, Empty, Stale",
    ["pool", "reason"],
    registry=REGISTRY,
)
USE_OF_POOLS: Final = (WAITERS, EJECTED_SERVICES, POOL_SLOTS_IN_USE, POOL_SLOTS, REFUSED_RESERVATIONS)
"""Metrics of pools that a leader reads from Redis. Their series end with its leadership."""
POOL_MEMBERS: Final = Gauge(
    "hotpool_pool_members", "Members by state, as of the pool's status", ["pool", "state"], registry=REGISTRY
)
POOL_MIN_MEMBERS: Final = Gauge(
    "hotpool_pool_min_members", "Ready members that a pool needs: spec.minMembers", ["pool"], registry=REGISTRY
)
POOL_READY: Final = Gauge(
    "hotpool_pool_ready",
    "1 while condition Ready is True, of pools that are not in mode DryRun",
    ["pool"],
    registry=REGISTRY,
)
POOL_CONDITION: Final = Gauge(
    "hotpool_pool_condition", "1 for each other condition that is True", ["pool", "condition"], registry=REGISTRY
)
GENERATOR_CONDITION: Final = Gauge(
    "hotpool_generator_condition",
    "1 for each condition that is True, except Ready",
    ["generator", "condition"],
    registry=REGISTRY,
)
GENERATOR_NOT_ADMITTED: Final = Gauge(
    "hotpool_generator_not_admitted", "Keys of a generator without a pool", ["generator"], registry=REGISTRY
)
NOT_SHOWN: Final = Gauge(
    "hotpool_metrics_not_shown", "Pools and generators without metrics by name", ["kind"], registry=REGISTRY
)
NODE_STATES: Final = Gauge(
    "hotpool_node_states", "Nodes by the reason of their condition Ready", ["state"], registry=REGISTRY
)
NODE_PROBLEMS: Final = Gauge(
    "hotpool_node_problems",
    "Nodes with a condition True: AddressNotAllowed, AddressConflict, CommandIgnored",
    ["condition"],
    registry=REGISTRY,
)
FAILING_SERVICES: Final = Gauge(
    "hotpool_failing_services",
    "Services of nodes with heartbeats that are Failed, or not offered because they failed too often (Flapping)",
    ["state"],
    registry=REGISTRY,
)
SERVICE_INCIDENTS: Final = Counter(
    "hotpool_service_incidents",
    "Failures, flapping and refused commands of services, seen while leading",
    ["reason"],
    registry=REGISTRY,
)
DRIFT: Final = Counter(
    "hotpool_redis_drift",
    "Differences that the drift check found in Redis, by object",
    ["what"],
    registry=REGISTRY,
)
WATCH_UP: Final = Gauge("hotpool_watch_up", "1 while a watch has a proof of life", ["kind"], registry=REGISTRY)
EVENTS: Final = Counter(
    "hotpool_events",
    "Events: ok (posted), error (not posted), dropped (too many pending)",
    ["result"],
    registry=REGISTRY,
)
HOTPLUG: Final = Histogram(
    "hotpool_hotplug_seconds",
    "Time from an agent's report to the change of membership, by stage; one observation per pool and target",
    ["stage", "direction"],
    buckets=(*_STAGES, 30, 60),
    registry=REGISTRY,
)
HOTPLUG_UNKNOWN: Final = Counter(
    "hotpool_hotplug_unknown", "Changes with an unknown time of a stage", ["stage"], registry=REGISTRY
)
FunctionCounter("hotpool_log_lines_lost", "Log lines that could not be written", lost_lines, REGISTRY)

# Series used by alerts exist from the start: Prometheus sees no increase in a series that begins with its first event.
for _kind in Kind:
    REJECTED.labels(_kind.value)
for _what in ("pool", "node", "index", "stray"):
    DRIFT.labels(_what)
for _reason in ("ServiceFailed", "ServiceFlapping", "CommandRefused"):
    SERVICE_INCIDENTS.labels(_reason)
FAILURES.labels("RejectedError")
TRANSITIONS.labels("InvalidReport")
