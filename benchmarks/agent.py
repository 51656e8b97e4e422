"""Cost and speed of the node agent; all from one run of about four minutes.

The agent is `hotpool-agent run`, a process of its own. The API server is the fake of the tests, in this process, so
the figures contain no API server's time.

- `agent_idle_cpu_percent`: with ten running services whose liveness is probed every 5 s, in 60 s without changes, at
  the default H of 15 s. Per cent of one core.
- `exit_to_patch_ms`: from just before SIGKILL is sent to a service's process until the PATCH that withdraws it arrives
  at the server; 200 times, over ten services in turn, each of them running and reported ready before.
- `agent_idle_*_patches_per_hour`: writes per H and per refresh, counted in a run at H = 1 s and a refresh every 2 s,
  times the number of these in an hour at the defaults (H 15 s, refresh 300 s).
- `agent_500_*`: 500 services observed by HTTP every second, and 500 supervised ones without probes.
  `first_report_s`, `all_ready_s`: since the start of the process.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from tests.support.fake_api import FakeApi, fake_api
from tests.support.http_services import http_services

from localfleet.catalogue import render, service
from localfleet.metrics_reader import percentiles
from localfleet.process import ManagedProcess

NODE: Final = "bench"
IDLE_SERVICES: Final = 10
IDLE_SECONDS: Final = 60.0
KILLS: Final = 200
PATCH_SECONDS: Final = 40.0
SHORT_REFRESH: Final = 2.0
HOUR: Final = 3600.0
DEFAULT_INTERVAL: Final = 15
DEFAULT_REFRESH: Final = 300.0
MANY: Final = 500
MANY_SECONDS: Final = 30.0
DEADLINE_SECONDS: Final = 120.0
_MIB: Final = 1024 * 1024

Figures = dict[str, float]


@dataclass
class Bench:
    """A running agent, and the server that it reports to."""

    api: FakeApi
    process: psutil.Process
    started: float

    async def until(self, condition: Callable[[], object]) -> float:
        """Wait until a condition holds at the server; return the seconds since the start of the agent."""
        await self.api.until(condition, DEADLINE_SECONDS)
        return time.monotonic() - self.started

    def services(self) -> list[dict[str, Any]]:
        """Return the services in the stored report."""
        found: list[dict[str, Any]] = (self.api.report(NODE) or {}).get("services") or []
        return found

    def summary(self) -> str:
        """Return the number of running services in the stored report."""
        return str((self.api.report(NODE) or {}).get("summary"))

    async def cpu_percent(self, seconds: float) -> float:
        """Return the agent's CPU in so many seconds, in per cent of one core."""
        before = _cpu(self.process)
        await asyncio.sleep(seconds)
        return (_cpu(self.process) - before) / seconds * 100

    def rss_mb(self) -> float:
        """Return the resident memory of the agent in MB."""
        return self.process.memory_info().rss / _MIB


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@asynccontextmanager
async def agent(services: list[dict[str, Any]], **settings: object) -> AsyncIterator[Bench]:
    """Run an agent with these services for the duration of the block."""
    with tempfile.TemporaryDirectory(prefix="hotpool-bench-") as name:
        folder = Path(name)
        catalogue = folder / "node.yaml"
        catalogue.write_text(render(services), encoding="utf-8")
        environment = {f"HOTPOOL_AGENT_{key.upper()}": str(value) for key, value in settings.items()}
        environment |= {"HOTPOOL_AGENT_STATE_DIR": str(folder / "state"), "HOTPOOL_AGENT_LISTEN": "127.0.0.1:0"}
        # The services listen on loopback only; so each has an endpoint, which is checked.
        environment["HOTPOOL_AGENT_ADVERTISE"] = "127.0.0.1"
        async with fake_api() as api:
            words = ["run", "--catalogue", str(catalogue), "--node", NODE, "--kubeconfig", str(api.kubeconfig(folder))]
            started = time.monotonic()
            process = ManagedProcess(
                "agent", [sys.executable, "-m", "hotpool_agent", *words], folder / "agent.log", environment
            )
            try:
                yield Bench(api, psutil.Process(process.pid), started)
            finally:
                await asyncio.to_thread(process.stop)


def sleepers(count: int) -> list[dict[str, Any]]:
    """Return supervised services without port and probe, each of a type of its own."""
    return [
        {"id": f"s{n}", "type": f"t{n}", "autoStart": True, "preStopSeconds": 0, "run": {"command": ["sleep", "86400"]}}
        for n in range(count)
    ]


async def idle() -> Figures:
    """Measure CPU without changes."""
    live = {"http": {"path": "/health"}}
    services = [service(f"s{n}", f"t{n}", live=live) for n in range(IDLE_SERVICES)]
    async with agent(services) as bench:
        await bench.until(lambda: bench.summary() == f"{IDLE_SERVICES}/{IDLE_SERVICES}" and bench.api.beats)
        cpu = await bench.cpu_percent(IDLE_SECONDS)
        return {"agent_idle_cpu_percent": cpu}


async def exits() -> Figures:
    """Measure the time from a crash to the PATCH at the server."""
    # A crashed service runs and counts again at once, so that each crash is a withdrawal.
    restless = {"restart_seconds": 0.01, "restart_limit_seconds": 0.01, "flap_half_life_seconds": 0.001}
    spent: list[float] = []
    async with agent(sleepers(IDLE_SERVICES), debounce=0.02, **restless) as bench:
        for number in range(KILLS):
            await bench.until(lambda: _ready(bench.api) == IDLE_SERVICES)
            victim = bench.services()[number % IDLE_SERVICES]
            bench.api.writes.clear()
            killed = time.monotonic()
            os.kill(victim["pid"], signal.SIGKILL)
            await bench.until(lambda: bench.api.writes)
            first = bench.api.writes[0]
            assert _ready_in(first.report) == IDLE_SERVICES - 1
            spent.append((first.at - killed) * 1000)
    return percentiles("exit_to_patch_ms", spent)


def _ready(api: FakeApi) -> int:
    return _ready_in(api.report(NODE) or {"capabilities": []})


def _ready_in(report: dict[str, Any]) -> int:
    return sum(capability["ready"] for capability in report["capabilities"])


async def patches() -> Figures:
    """Count the writes of an idle agent."""
    async with agent(sleepers(IDLE_SERVICES), interval=1, refresh_seconds=SHORT_REFRESH) as bench:
        await bench.until(lambda: bench.summary() == f"{IDLE_SERVICES}/{IDLE_SERVICES}" and bench.api.beats)
        reports, beats = len(bench.api.writes), len(bench.api.beats)
        await asyncio.sleep(PATCH_SECONDS)
        each_refresh = (len(bench.api.writes) - reports) / (PATCH_SECONDS / SHORT_REFRESH)
        each_interval = (len(bench.api.beats) - beats) / PATCH_SECONDS
    figures = {
        "agent_idle_report_patches_per_hour": each_refresh * HOUR / DEFAULT_REFRESH,
        "agent_idle_lease_patches_per_hour": each_interval * HOUR / DEFAULT_INTERVAL,
    }
    return {"agent_idle_patches_per_hour": sum(figures.values()), **figures}


async def many_observed() -> Figures:
    """Measure with 500 services observed every second."""
    async with http_services(*(f"s{n}" for n in range(MANY))) as works:
        services = [
            {"id": name, "type": f"t{n % 10}", "port": works.port, "observe": {"http": {"path": f"/{name}"}}}
            for n, name in enumerate(works.up)
        ]
        return await _many("observed", services)


async def _many(kind: str, services: list[dict[str, Any]]) -> Figures:
    async with agent(services) as bench:
        first = await bench.until(lambda: bench.api.writes)
        ready = await bench.until(lambda: bench.summary() == f"{MANY}/{MANY}")
        cpu = await bench.cpu_percent(MANY_SECONDS)
        report = bench.api.report(NODE)
        name = f"agent_{MANY}_{kind}"
        return {
            f"{name}_first_report_s": first,
            f"{name}_all_ready_s": ready,
            f"{name}_rss_mb": bench.rss_mb(),
            f"{name}_cpu_percent": cpu,
            f"{name}_report_bytes": len(json.dumps(report, separators=(",", ":"))),
        }


async def many_supervised() -> Figures:
    """Measure with 500 processes."""
    return await _many("supervised", sleepers(MANY))


def measure() -> Figures:
    """Return all figures of one run."""
    return asyncio.run(_measure())


async def _measure() -> Figures:
    figures: Figures = {}
    for part in (idle, exits, patches, many_observed, many_supervised):
        sys.stderr.write(f"{part.__name__} ...\n")
        figures |= {name: round(value, 2) for name, value in (await part()).items()}
    return figures
