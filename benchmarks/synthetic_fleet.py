"""The fleet of the scale figures as API objects: 10,000 nodes that translate between twelve languages, in 132 pools.

A node's report is as full as an agent's. One generator makes the pools.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.memory_api import LEASES, MemoryApi, write_lines
from tests.support.builders import generator_object, node_object, report, requires, service, stopped

from hotpool.api.meta import LEASE_LABEL, LEASE_PREFIX
from hotpool.core.model import Kind

Json = dict[str, Any]

NODES: Final = 10_000
LANGUAGES: Final = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "zh")
POOLS: Final = len(LANGUAGES) * (len(LANGUAGES) - 1)
H_SECONDS: Final = 120
"""The longest interval, so that no node is silent while the benchmark is busy."""
_TIME: Final = "2026-11-24T00:00:00.000000Z"


def name(number: int) -> str:
    """Return the name of a node."""
    return f"node-{number:05}"


def content(number: int, sequence: int = 1, *, asr: bool = True, blocked: tuple[str, ...] = ()) -> Json:
    """Return a node's report; without `asr` it is in no pool, with a blocked pair in one pool less."""
    spoken = {"languages": list(LANGUAGES)}
    rule = {"kind": "any_to_any", "languages": list(LANGUAGES), "pairs": [], "blocked": list(blocked)}
    services = [
        (service if asr else stopped)("whisper", "asr", **_details(1), **spoken),
        service("m2m100", "nmt", **_details(2), rules=[rule], languages=[]),
        service("piper", "tts", **_details(3), **spoken),
        service("repair", "semantic", **_details(4), **spoken),
    ]
    head = {
        "instance": f"5f0c{number:028x}",
        "session": f"91aa{number:028x}",
        "sequence": sequence,
        "time": f"2026-11-24T00:00:{sequence % 60:02}.000000Z",
        "intervalSeconds": H_SECONDS,
        "platform": {"os": "linux", "arch": "amd64", "hostname": name(number)},
        "hardware": {"cpus": 16, "memoryMiB": 65_536, "gpus": [{"model": "L4", "memoryMiB": 24_576}]},
    }
    return report(*services, **head, summary="4/4" if asr else "3/4", leaving=False, dropped=0, truncated=0)


def _details(number: int) -> Json:
    return {
        "device": "gpu",
        "since": _TIME,
        "port": 6000 + number,
        "pid": 4711 + number,
        "version": "1.4.2",
        "model": "large-v3",
        "restarts": 0,
        "lastError": None,
        "desired": "Running",
        "desiredBy": "catalogue",
        "requestID": None,
        "attributes": [{"key": "tier", "values": ["gold"]}],
    }


def lease_line(number: int, beat: int, event: str = "MODIFIED") -> bytes:
    """Return a line of the Lease watch."""
    return json.dumps({"type": event, "object": lease(number, beat)}, separators=(",", ":")).encode()


def lease(number: int, beat: int) -> Json:
    """Return a node's Lease as stored."""
    instance = f"5f0c{number:028x}/1"
    fields: Json = {"f:spec": {"f:holderIdentity": {}, "f:leaseDurationSeconds": {}, "f:renewTime": {}}}
    head = {"manager": "hotpool-agent", "operation": "Update", "apiVersion": "coordination.k8s.io/v1"}
    return {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {
            "name": LEASE_PREFIX + name(number),
            "namespace": "fleet",
            "uid": f"00000000-0000-0000-0000-{number:012}",
            "resourceVersion": str(1000 + beat),
            "creationTimestamp": _TIME,
            "labels": {LEASE_LABEL: "true"},
            "managedFields": [{**head, "time": _TIME, "fieldsType": "FieldsV1", "fieldsV1": fields}],
        },
        "spec": {
            "holderIdentity": instance,
            "leaseDurationSeconds": 3 * H_SECONDS,
            "renewTime": f"2026-11-24T00:{beat % 3600 // 60:02}:{beat % 60:02}.000000Z",
        },
    }


def create_fleet(folder: Path, nodes: int = NODES) -> MemoryApi:
    """Create the fleet without any operator's writes: reports, Leases and a generator."""
    server = MemoryApi(folder)
    for number in range(nodes):
        server.put(Kind.NODE.value, node_object(name(number), content(number), labels={"site": f"s{number % 10}"}))
    server.put(Kind.GENERATOR.value, generator_object("speech", template=_template()))
    write_lines(folder, LEASES, _leases(nodes))
    return server


def _template() -> Json:
    return {"spec": {"requires": requires("asr", "nmt", "tts")}}


def _leases(nodes: int) -> Iterator[bytes]:
    return (json.dumps(lease(number, 0), separators=(",", ":")).encode() for number in range(nodes))
