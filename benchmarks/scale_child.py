"""One process of the scale figures, so that each starts with clean memory: `build`, `cold` or `memory`, and a folder.

Its last line of output is one JSON object.

- build: an operator without former state makes 132 pools for 10,000 nodes; its writes are stored in the folder.
- cold: an operator starts with the stored objects; then heartbeats and flips are measured.
- memory: the same start, with measurements of the resident memory.
"""

import asyncio
import ctypes
import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from benchmarks.in_process import QUIET_SECONDS, InProcess
from benchmarks.memory_api import MemoryApi
from benchmarks.synthetic_fleet import NODES, POOLS, content, create_fleet, lease_line, name

from hotpool.core.model import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HEARTBEATS: Final = 2000
FLIPS: Final = 5
ROUND_SECONDS: Final = 1.2
"""Longer than the operator's interval between writes: each flip is the first of its round."""
SETTLED: Final = int(11.0 / QUIET_SECONDS)
"""Quiet checks, longer than the ten seconds of slow status writes and than the first resync."""
_MIB: Final = 1 << 20

Samples = dict[str, list[float]]


async def build(folder: Path, nodes: int) -> Samples:
    """Let an operator make the pools and fill them."""
    server = create_fleet(folder, nodes)
    server.save()
    server = MemoryApi(folder)
    fleet = InProcess(server)
    async with fleet.listed(), fleet.leading():
        await fleet.renew_leases([lease_line(number, 1) for number in range(nodes)])
        await fleet.until(lambda: len(fleet.cache.pools) == POOLS)
        await fleet.quiet(SETTLED)
        members = [server.read(Kind.POOL.value, pool)["status"]["members"] for pool in fleet.cache.pools]
        assert members == [nodes] * POOLS, members
    server.save()
    return {}


async def cold(folder: Path, nodes: int) -> Samples:
    """Measure the start from an empty cache, then heartbeats and flips."""
    server = MemoryApi(folder)
    fleet = InProcess(server)
    began, before = time.perf_counter(), fleet.cpu()
    async with fleet.listed(), fleet.leading():
        await fleet.all_reconciled()
        seconds, cpu = time.perf_counter() - began - server.cpu_seconds, fleet.cpu() - before
        before = fleet.cpu()
        step = await fleet.longest_step(fleet.quiet(SETTLED))  # the first resync, and slow status writes
        audit = fleet.cpu() - before
        writes = sum(server.writes.values())
        samples: Samples = {
            "cold_start_10k_s": [seconds],
            "cold_start_10k_cpu_s": [cpu],
            "cold_start_10k_writes": [writes],
            "audit_10k_cpu_ms": [audit * 1000],
            "audit_10k_longest_turn_ms": [step * 1000],
        }
        samples |= await _heartbeats(fleet, nodes)
        samples |= await _flips(fleet, "flip_10k", {"asr": False})
        return samples | await _flips(fleet, "flip_10k_one_pool", {"blocked": ("de-en",)})


async def memory(folder: Path, nodes: int) -> Samples:
    """Measure the memory of nodes, and of their memberships."""
    fleet = InProcess(MemoryApi(folder))
    at_first = _rss()
    async with fleet.watching_leases():
        await fleet.watch_all(Kind.NODE)
        of_nodes = _rss() - at_first
    async with fleet.listed(), fleet.leading():
        await fleet.all_reconciled()
        await fleet.quiet(SETTLED)
        whole = _rss() - at_first
    memberships = sum(len(subject.members) for subject in fleet.cache.pools.values())
    return {
        "memory_mb_per_1000_nodes": [whole / _MIB / nodes * 1000],
        "memory_kb_per_node": [of_nodes / 1024 / nodes],
        "memory_bytes_per_membership": [(whole - of_nodes) / memberships],
        "memory_10k_mb": [whole / _MIB],
        "memory_10k_peak_mb": [(_peak() - at_first) / _MIB],
    }


async def _heartbeats(fleet: InProcess, nodes: int) -> Samples:
    """Measure reports that change nothing, and Lease renewals; each through parsing, decoding and cache."""
    count = min(HEARTBEATS, nodes)
    lines = []
    for number in range(count):
        body = fleet.server.read(Kind.NODE.value, name(number))
        body["status"]["report"] = content(number, 2)
        lines.append(fleet.server.put(Kind.NODE.value, body))
    written = sum(fleet.server.writes.values())
    before = fleet.cpu()
    for line in lines:
        fleet.watch(Kind.NODE, "MODIFIED", line)
    report = (fleet.cpu() - before) / count
    await fleet.quiet()
    renewed = [lease_line(number, 2) for number in range(nodes)]
    before = fleet.cpu()
    await fleet.renew_leases(renewed)
    renewal = (fleet.cpu() - before) / nodes
    assert sum(fleet.server.writes.values()) == written, fleet.server.writes
    return {"judge_us": [report * 1e6], "judge_lease_us": [renewal * 1e6]}


async def _flips(fleet: InProcess, figure: str, change: dict[str, Any]) -> Samples:
    """Stop and start one service, node by node; measure each until nothing is left to write."""
    spent: list[float] = []
    writes: list[float] = []
    while len(spent) < 2 * FLIPS:
        number = len(spent) // 2
        await asyncio.sleep(ROUND_SECONDS)
        listed = fleet.server.lists
        line = _report(fleet, number, {} if len(spent) % 2 else change)
        before, written = fleet.cpu(), sum(fleet.server.writes.values())
        fleet.watch(Kind.NODE, "MODIFIED", line)
        await fleet.quiet()
        if fleet.server.lists == listed:  # otherwise a resync interfered: repeat
            spent.append((fleet.cpu() - before) * 1000)
            writes.append(sum(fleet.server.writes.values()) - written)
    return {f"{figure}_cpu_ms": spent, f"{figure}_writes": writes}


def _report(fleet: InProcess, number: int, change: dict[str, Any]) -> bytes:
    body = fleet.server.read(Kind.NODE.value, name(number))
    body["status"]["report"] = content(number, body["status"]["report"]["sequence"] + 1, **change)
    return fleet.server.put(Kind.NODE.value, body)


def _rss() -> int:
    """Return the resident memory after freeing unused memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _peak() -> int:
    words = Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()
    return int(words[0]) * 1024


def main() -> None:
    """Run one part."""
    parts: dict[str, Callable[[Path, int], Coroutine[Any, Any, Samples]]] = {
        "build": build,
        "cold": cold,
        "memory": memory,
    }
    folder = Path(sys.argv[2])
    nodes = int(sys.argv[3]) if len(sys.argv) > 3 else NODES
    samples = asyncio.run(parts[sys.argv[1]](folder, nodes))
    sys.stdout.write(json.dumps(samples) + "\n")


if __name__ == "__main__":
    main()
