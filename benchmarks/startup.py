"""Start and response times of the programs, compared with an empty Python and kubectl, and memory of an agent.

A real API server, an operator, one agent and one pool. In each round every program runs once, sequentially, so that
compared times are measured within seconds; each round gives one ratio or one difference. One warm-up round precedes.

- `start_version_ratio`, `start_version_ratio_kubectl`: `hotpool --version` over `python -c pass`, and over
  `kubectl version --client`.
- `start_why_ms_over_kubectl` and the like: `hotpool why NODE POOL` minus `kubectl get nodepools`, in ms; `top`, `pick`.
- `agent_status_ms`: `hotpool-agent status` minus `python -c pass`.
- `start_*_ms`, `start_*_cpu_ms`: each program by itself, wall-clock time and CPU. Other load increases the former much,
  and CPU a little.
- `agent_rss_mb`: resident memory of an agent with ten running services, after its first accepted report; the API
  server is the fake of the tests.
"""

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.agent import IDLE_SERVICES, agent, sleepers
from benchmarks.cluster import fleets, pools

from localfleet.catalogue import service
from localfleet.fleet import Fleet
from localfleet.metrics_reader import spread
from localfleet.process import wait_for

ROUNDS: Final = 11
AGENTS: Final = 7
NODE: Final = "edge-1"
POOL: Final = "pool-0"
DEADLINE_SECONDS: Final = 60.0
_BIN: Final = Path(sys.executable).parent

Round = Mapping[str, tuple[float, float]]
"""Program → seconds of wall-clock time and of CPU."""


def _programs(fleet: Fleet) -> dict[str, list[str]]:
    hotpool, kubectl = str(_BIN / "hotpool"), str(fleet.kubectl_program)
    where = ["--kubeconfig", str(fleet.admin), "-n", fleet.namespace]
    return {
        "python": [sys.executable, "-c", "pass"],
        "version": [hotpool, "--version"],
        "kubectl version": [kubectl, "version", "--client"],
        "kubectl get": [kubectl, "get", "nodepools", *where],
        "why": [hotpool, "why", NODE, POOL, *where],
        "top": [hotpool, "top", *where],
        "pick": [hotpool, "pick", POOL, "--redis", fleet.redis_url, *where],
        "status": [str(_BIN / "hotpool-agent"), "status", "--node", NODE],
    }


def _round(fleet: Fleet) -> Round:
    environment = {**os.environ, **fleet.agent_environment}
    spent: dict[str, tuple[float, float]] = {}
    for name, command in _programs(fleet).items():
        began, cpu = time.perf_counter(), _cpu()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        spent[name] = time.perf_counter() - began, _cpu() - cpu
    return spent


def _cpu() -> float:
    """Return the CPU seconds of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _programs_figures(fleet: Fleet) -> dict[str, float]:
    _round(fleet)
    rounds = [_round(fleet) for _ in range(ROUNDS)]
    clock = {name: [each[name][0] for each in rounds] for name in rounds[0]}
    figures = _ratio("start_version_ratio", clock["version"], clock["python"])
    figures |= _ratio("start_version_ratio_kubectl", clock["version"], clock["kubectl version"])
    for name in ("why", "top", "pick"):
        figures |= _beyond(f"start_{name}_ms_over_kubectl", clock[name], clock["kubectl get"])
    figures |= _beyond("agent_status_ms", clock["status"], clock["python"])
    for name, seconds in clock.items():
        figure = f"start_{name.replace(' ', '_')}"
        figures |= spread(f"{figure}_ms", [1000 * each for each in seconds])
        figures |= spread(f"{figure}_cpu_ms", [1000 * each[name][1] for each in rounds])
    return figures


def _ratio(name: str, these: Sequence[float], those: Sequence[float]) -> dict[str, float]:
    return spread(name, [one / other for one, other in zip(these, those, strict=True)])


def _beyond(name: str, these: Sequence[float], those: Sequence[float]) -> dict[str, float]:
    return spread(name, [1000 * (one - other) for one, other in zip(these, those, strict=True)])


async def _agent_rss() -> float:
    async with agent(sleepers(IDLE_SERVICES)) as bench:
        await bench.until(lambda: bench.summary() == f"{IDLE_SERVICES}/{IDLE_SERVICES}" and bench.api.beats)
        return bench.rss_mb()


def measure() -> dict[str, float]:
    """Return all figures of one run."""
    with fleets() as ([fleet], _):
        fleet.apply(*pools(1))
        fleet.start_operator()
        fleet.wait_leading()
        fleet.start_agent(NODE, [service("s0", "type-0")])
        wait_for("the node is in the pool", lambda: fleet.members_in_redis(POOL) == {NODE: "Ready"}, DEADLINE_SECONDS)
        figures = _programs_figures(fleet)
    sys.stderr.write("agents ...\n")
    return figures | spread("agent_rss_mb", [asyncio.run(_agent_rss()) for _ in range(AGENTS)])
