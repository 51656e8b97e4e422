"""One process of the scale figures, so that each starts with clean memory: its part, and a folder.

Garbage is collected as in the operator. The last line of output is one JSON object.

- build: an operator without former state makes 132 pools for 10,000 nodes; its writes are stored in the folder.
- cold: an operator starts with the stored objects; then heartbeats and flips are measured.
- memory: the same start, with measurements of the resident memory.
- turns: the longest turn of the event loop in each phase of an operator's life.
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
from benchmarks.synthetic_fleet import H_SECONDS, NODES, POOLS, content, create_fleet, lease_line, name
from benchmarks.turns import TurnMeter
from tests.support.builders import generator_object, pool_object, requires

from hotpool.__main__ import GC_THRESHOLD
from hotpool.core.model import Kind
from hotpool.core.node_liveness import OFFLINE_AFTER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HEARTBEATS: Final = 2000
FLIPS: Final = 5
ROUND_SECONDS: Final = 1.2
"""Longer than the operator's interval between writes: each flip is the first of its round."""
SETTLED: Final = int(11.0 / QUIET_SECONDS)
"""Quiet checks, longer than the ten seconds of slow status writes and than the first resync."""
UNSEEN: Final = 1000
"""Changed nodes that only the resync finds."""
_SILENCE_SECONDS: Final = 5.0
_MIB: Final = 1 << 20

Samples = dict[str, list[float]]


async def build(server: MemoryApi, _: TurnMeter, nodes: int) -> Samples:
    """Let an operator make the pools and fill them."""
    create_fleet(server.folder, nodes).save()
    fleet = InProcess(server)
    async with fleet.listed(), fleet.leading():
        await fleet.renew_leases([lease_line(number, 1) for number in range(nodes)])
        await fleet.until(lambda: len(fleet.cache.pools) == POOLS)
        await fleet.quiet(SETTLED)
        members = [server.read(Kind.POOL.value, pool)["status"]["members"] for pool in fleet.cache.pools]
        assert members == [nodes] * POOLS, members
    server.save()
    return {}


async def cold(server: MemoryApi, meter: TurnMeter, nodes: int) -> Samples:
    """Measure the start from an empty cache, then heartbeats and flips."""
    fleet = InProcess(server)
    began, before = time.perf_counter(), fleet.cpu()
    async with fleet.listed(), fleet.leading():
        await fleet.all_reconciled()
        seconds, cpu = time.perf_counter() - began - server.cpu_seconds, fleet.cpu() - before
        before = fleet.cpu()
        step = await meter.longest_ms(fleet.quiet(SETTLED))  # the first resync, and slow status writes
        audit = fleet.cpu() - before
        writes = sum(server.writes.values())
        samples: Samples = {
            "cold_start_10k_s": [seconds],
            "cold_start_10k_cpu_s": [cpu],
            "cold_start_10k_writes": [writes],
            "audit_10k_cpu_ms": [audit * 1000],
            "audit_10k_longest_turn_ms": [step],
        }
        samples |= await _heartbeats(fleet, nodes)
        samples |= await _flips(fleet, "flip_10k", {"asr": False})
        return samples | await _flips(fleet, "flip_10k_one_pool", {"blocked": ("de-en",)})


async def memory(server: MemoryApi, _: TurnMeter, nodes: int) -> Samples:
    """Measure the memory of nodes, and of their memberships."""
    fleet = InProcess(server)
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


async def turns(server: MemoryApi, meter: TurnMeter, nodes: int) -> Samples:
    """Measure the longest turn of each phase."""
    fleet = InProcess(server)
    await fleet.watch_everything()
    async with fleet.watching_leases():
        found = {"gate": await meter.longest_ms(fleet.open_gate())}
        async with fleet.leading():
            found["take_over"] = await meter.longest_ms(fleet.all_reconciled())
            await fleet.quiet()
            found["resync"] = await meter.longest_ms(fleet.manager.compare())
            found["leases"] = await _renewed(fleet, meter, nodes, 2)
            found |= await _changes(fleet, meter)
            fleet.manager.on_watch_lost()
            found["lease_watch_restored"] = await meter.longest_ms(fleet.restore_lease_watch())
            fleet.jump(OFFLINE_AFTER * H_SECONDS)
            await fleet.until(lambda: fleet.cache.ageing)
            found["silence_of_all"] = await meter.longest_ms(fleet.silence_recorded())
            found["brake"] = await meter.longest_ms(asyncio.sleep(_SILENCE_SECONDS))
            found["return_of_all"] = await _renewed(fleet, meter, nodes, 3)
    return {f"turn_10k_{phase}_ms": [milliseconds] for phase, milliseconds in found.items()}


async def _renewed(fleet: InProcess, meter: TurnMeter, nodes: int, beat: int) -> float:
    lines = [lease_line(number, beat) for number in range(nodes)]
    await asyncio.sleep(0)
    return await meter.longest_ms(fleet.renew_leases(lines))


async def _changes(fleet: InProcess, meter: TurnMeter) -> dict[str, float]:
    """Measure the turns of changed objects."""

    async def watched(kind: Kind, line: bytes) -> float:
        async def settled() -> None:
            fleet.watch(kind, "MODIFIED", line)
            await fleet.quiet()

        return await meter.longest_ms(settled())

    needs = requires("asr", "nmt", "tts", languagePairs={"allOf": ["en-de"]})
    template = {"spec": {"requires": requires("asr")}}
    added_pool = fleet.server.put(Kind.POOL.value, pool_object("extra", requires=needs))
    added = generator_object("second", template=template, rule={"hash": {"count": 4}})
    added_generator = fleet.server.put(Kind.GENERATOR.value, added)
    found = {
        "flip": await watched(Kind.NODE, _report(fleet, 0, {"asr": False})),
        "new_pool": await watched(Kind.POOL, added_pool),
        "new_generator": await watched(Kind.GENERATOR, added_generator),
    }
    for number in range(1, UNSEEN):
        _report(fleet, number, {"blocked": ("de-en",)})
    await asyncio.sleep(0)
    return found | {"resync_of_changes": await meter.longest_ms(fleet.manager.compare())}


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
    gc.set_threshold(GC_THRESHOLD)
    parts: dict[str, Callable[[MemoryApi, TurnMeter, int], Coroutine[Any, Any, Samples]]] = {
        "build": build,
        "cold": cold,
        "memory": memory,
        "turns": turns,
    }
    server = MemoryApi(Path(sys.argv[2]))
    meter = TurnMeter(lambda: server.cpu_seconds)
    nodes = int(sys.argv[3]) if len(sys.argv) > 3 else NODES
    samples = meter.run(parts[sys.argv[1]](server, meter, nodes))
    sys.stdout.write(json.dumps(samples) + "\n")


if __name__ == "__main__":
    main()
