"""Cost of the operator's own work at 10,000 nodes and 132 pools; in process, no cluster.

Twelve languages make 132 directed pairs. Every node offers them all, so there are 1.3 million memberships. The
operator's parts are real, with an API server that is replaced below the client's HTTP session; CPU and time of that
server are left out. kopf, TLS and Redis are not in these figures.

- `judge_us`, `judge_lease_us`: CPU for a report that changes nothing, and for a Lease renewal, from the bytes of the
  watch to the cache.
- `plan_5000_ms`: the plan of a pool of 5,000 members after one of them stopped; in this process.
- `flip_10k_*`: CPU and writes until nothing is left to write, after a service stops or starts and its node leaves or
  joins all 132 pools. `flip_10k_one_pool_*`: one language pair is blocked or allowed again.
- `cold_start_10k_*`: from an empty cache until every key was reconciled, in a fleet of a former operator; the writes
  include those of the next seconds.
- `audit_10k_*`: CPU of the resync every 5 min, and the longest time for which it blocks the event loop: a stop at that
  moment waits so long. CPU time.
- `turn_10k_*_ms`: CPU time of the longest turn of the event loop in one phase: opening the gate, taking over, the
  resync (also of 1,000 nodes changed unseen), renewals of all Leases at once, a flip of a node, a new pool and a new
  generator, the Lease watch restored, the silence of all nodes, the writes while the brake holds, their return.
- `memory_*`: growth of the resident memory of a process of its own: nodes alone, and what their memberships add.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from benchmarks.synthetic_fleet import content, name
from tests.support.builders import node, open_cache, pool, requires, slice_

from hotpool.core.planning.pool_plan import plan_pool
from localfleet.kind import REPOSITORY
from localfleet.metrics_reader import spread

RUNS: Final = 3
"""Processes of each kind."""
MEMBERS: Final = 5000
PLANS: Final = 50
_SLICE: Final = 100


def plans() -> list[float]:
    """Return the milliseconds of each plan."""
    cache = open_cache()
    names = [name(number) for number in range(MEMBERS)]
    cache.upsert(pool("big", requires=requires("asr", "nmt", "tts", languagePairs={"allOf": ["en-de"]})), 0.0)
    for number in range(MEMBERS):
        cache.upsert(node(names[number], content(number)), 0.0)
    for index in range(MEMBERS // _SLICE):
        cache.upsert(slice_("big", index, *names[index * _SLICE : (index + 1) * _SLICE]), 0.0)
    spent: list[float] = []
    subject = cache.pools["big"]
    plan_pool(subject, cache.slices["big"], cache.matches.known_types, 0.0, "t")
    subject.dirty.snapshot()
    for number in range(PLANS):
        cache.upsert(node(names[number], content(number, 2, asr=False), version=2), 0.0)
        began = time.perf_counter()
        plan = plan_pool(subject, cache.slices["big"], cache.matches.known_types, 0.0, "t")
        spent.append((time.perf_counter() - began) * 1000)
        assert sum(map(len, plan.slices.values())) == MEMBERS - 1
        cache.upsert(node(names[number], content(number, 3), version=3), 0.0)
    return spent


def child(part: str, folder: Path) -> dict[str, list[float]]:
    """Run one process; return its measurements."""
    sys.stderr.write(f"scale: {part} ...\n")
    command = [sys.executable, "-m", "benchmarks.scale_child", part, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=REPOSITORY)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure() -> dict[str, float]:
    """Return all figures of one run."""
    samples: defaultdict[str, list[float]] = defaultdict(list)
    sys.stderr.write("scale: plan ...\n")
    samples["plan_5000_ms"] = plans()
    with tempfile.TemporaryDirectory(prefix="hotpool-bench-") as place:
        folder = Path(place)
        child("build", folder)
        for part in ("cold", "memory", "turns") * RUNS:
            for figure, values in child(part, folder).items():
                samples[figure] += values
    return {key: value for figure, values in samples.items() for key, value in spread(figure, values).items()}
