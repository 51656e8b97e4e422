"""The brake decides on all nodes of one silence together, in whatever order they are looked at (requirement D8)."""

from dataclasses import dataclass
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.builders import H, node, open_cache, pool, report, service

from hotpool.core import cluster_cache, match_index
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Heartbeat
from hotpool.core.planning.pool_plan import plan_members
from hotpool.core.watch_health import PROBE_SECONDS

PERCENT = 30
LONGEST_LOOK = 5.0


@dataclass(frozen=True)
class Outage:
    """`interval`: H in seconds; `phases`: of the beats, in parts of H; the first `silent` nodes end at `H`.

    `echo`: seconds from a write of the canary to its arrival; `looks`: pauses between ticks, in seconds; `per_tick`:
    nodes looked at between two plans.
    """

    interval: float
    phases: tuple[float, ...]
    silent: int
    echo: float
    looks: tuple[float, ...]
    per_tick: int


@st.composite
def outages(draw: st.DrawFn) -> Outage:
    live = draw(st.integers(0, 12))
    silent = draw(st.integers(2, 20).filter(lambda n: 100 * n > PERCENT * (n + live)))
    phase = st.floats(0, 0.99, allow_nan=False)
    phases = tuple(draw(st.lists(phase, min_size=silent + live, max_size=silent + live)))
    interval = float(draw(st.integers(1, 120)))
    looks = draw(st.lists(st.floats(0.05, 1.0), min_size=5, max_size=20))
    longest = min(interval, LONGEST_LOOK)
    pauses, per_tick = tuple(part * longest for part in looks), draw(st.integers(1, 8))
    return Outage(interval, phases, silent, draw(st.floats(0.001, 9)), pauses, per_tick)


def beat(cache: ClusterCache, name: str, at: float, interval: float) -> None:
    cache.record_heartbeat(Heartbeat(name, "i/1", f"{at}", interval), at)


def published(cache: ClusterCache) -> set[str]:
    """Plan the pool and record the plan, as a controller does."""
    membership = cache.pools["p"]
    members = plan_members(membership, {}, ageing=cache.ageing)
    membership.record_plan(members.retained)
    return set(members.published)


def tick(cache: ClusterCache, now: float, confirmed: float, expected: set[str]) -> None:
    """Look at all nodes that are due, and plan after each part of them."""
    while True:
        cache.advance(now, confirmed)
        assert published(cache) == expected, now
        if (deadline := cache.next_deadline()) is None or deadline > now:
            return


@given(outages())
@settings(max_examples=40, deadline=None)
def test_no_node_of_a_group_that_the_brake_keeps_leaves(outage: Outage) -> None:
    """All nodes of the group fall silent within one interval."""
    interval, names = outage.interval, [f"n{index}" for index in range(len(outage.phases))]
    cache = open_cache()
    cache.upsert(pool("p", requires={"types": [{"type": "asr"}]}, brake={"maxSilentPercent": PERCENT}), 0)
    for name in names:
        cache.upsert(node(name, report(service("s", "asr"), intervalSeconds=int(interval))), 0)
        beat(cache, name, 0, interval)
    assert published(cache) == set(names)
    now, look = 0.0, 0
    beats = [phase * interval for phase in outage.phases]
    while now < 7 * interval + 3 * PROBE_SECONDS + outage.echo:
        now += outage.looks[look % len(outage.looks)]
        look += 1
        for index, name in enumerate(names):
            while beats[index] <= now and (index >= outage.silent or beats[index] < interval):
                beat(cache, name, beats[index], interval)
                beats[index] += interval
        confirmed = max(0.0, (now - outage.echo) // PROBE_SECONDS * PROBE_SECONDS)
        with (
            patch.object(cluster_cache, "_NODES_PER_STEP", outage.per_tick),
            patch.object(match_index, "_MATCHES_PER_STEP", outage.per_tick),
        ):
            tick(cache, now, confirmed, set(names))


def test_the_brake_ends_with_the_last_node_that_is_looked_at() -> None:
    """Until all are looked at, no silent node leaves, also if in the end few are silent."""
    cache = open_cache()
    cache.upsert(pool("p", requires={"types": [{"type": "asr"}]}, brake={"maxSilentPercent": PERCENT}), 0)
    names = [f"n{index:03}" for index in range(1000)]
    for name in names:
        cache.upsert(node(name, report(service("s", "asr"))), 0)
        beat(cache, name, 0, H)
    assert published(cache) == set(names)
    for name in names[250:]:
        beat(cache, name, 2 * H, H)
    cache.advance(4 * H)
    assert cache.ageing
    assert published(cache) == set(names)
    while cache.ageing:
        cache.advance(4 * H)
    assert published(cache) == set(names[250:])
