"""What the operator counts, in Prometheus' terms; no label grows with the number of nodes.

Written by the reconciler and the sources, served by `probes`.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from hotpool.core.model import Kind

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_STAGES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

WRITES: Final = Counter(
    "hotpool_writes", "Writes by sink, verb and result", ["sink", "verb", "result"], registry=REGISTRY
)
APPLY: Final = Histogram(
    "hotpool_apply_seconds",
    "Time from a key being due to its writes done",
    ["kind"],
    buckets=_STAGES,
    registry=REGISTRY,
)
HEARTBEATS: Final = Counter("hotpool_heartbeats", "Lease renewals seen", registry=REGISTRY)
REJECTED: Final = Counter("hotpool_rejected_objects", "Objects that could not be read", ["kind"], registry=REGISTRY)
TRANSITIONS: Final = Counter("hotpool_node_transitions", "Changes of a node's condition", ["reason"], registry=REGISTRY)
FAILURES: Final = Counter("hotpool_failures", "Reconciliations that failed, by error", ["error"], registry=REGISTRY)
NODES: Final = Gauge("hotpool_nodes", "Nodes known", registry=REGISTRY)
POOLS: Final = Gauge("hotpool_pools", "Pools known", registry=REGISTRY)
LEADER: Final = Gauge("hotpool_leader", "1 while this process may write", registry=REGISTRY)
TERM: Final = Gauge("hotpool_term", "Term of leadership", registry=REGISTRY)
REDIS_UP: Final = Gauge("hotpool_redis_up", "1 while Redis takes our writes", registry=REGISTRY)
REDIS_FAILURES: Final = Counter(
    "hotpool_redis_failures",
    "Calls of Redis that failed: away, slow, full, replica, loading, password, denied, shared, unclaimed, …",
    ["reason"],
    registry=REGISTRY,
)
POOL_WRITES: Final = Counter(
    "hotpool_redis_pool_writes",
    "Pools written to Redis: change (what differs from the former image), whole",
    ["how"],
    registry=REGISTRY,
)
DRIFT: Final = Counter(
    "hotpool_redis_drift",
    "What the audit found in Redis to be other than it should, by what",
    ["what"],
    registry=REGISTRY,
)
WATCH_UP: Final = Gauge("hotpool_watch_up", "1 while a watch is open: leases or nodes", ["kind"], registry=REGISTRY)
EVENTS: Final = Counter(
    "hotpool_events", "Events to post: ok, error (not posted), dropped (no room)", ["result"], registry=REGISTRY
)
HOTPLUG: Final = Histogram(
    "hotpool_hotplug_seconds",
    "From an agent's report to where a membership changed, by stage; one observation for each node and pool",
    ["stage", "direction"],
    buckets=(*_STAGES, 30, 60),
    registry=REGISTRY,
)
HOTPLUG_UNKNOWN: Final = Counter(
    "hotpool_hotplug_unknown", "Changes of which the time of a stage is not known", ["stage"], registry=REGISTRY
)

# What alerts count is there from the start: Prometheus sees no increase in a series that begins with its first event.
for _kind in Kind:
    REJECTED.labels(_kind.value)
for _what in ("pool", "node", "index", "stray"):
    DRIFT.labels(_what)
FAILURES.labels("RejectedError")
TRANSITIONS.labels("InvalidReport")
