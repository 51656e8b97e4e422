"""Minimums of hardware (requirements D2, D3, B11): what meets them, what is observed, which pools a change reaches."""

from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.builders import node, open_cache, pool, report, requires, service, view

from hotpool.api.pool import PoolSpec
from hotpool.core.matching import Criterion, evaluate, match
from hotpool.core.model import Key, Kind

L4 = {"model": "NVIDIA L4", "memoryMiB": 24_576}
L40S = {"model": "NVIDIA L40S", "memoryMiB": 46_068}
MI300X = {"model": "AMD Instinct MI300X", "memoryMiB": 196_592}


def spec(**hardware: Any) -> PoolSpec:
    return pool("p", requires={"hardware": hardware}).spec


def machine(*gpus: dict[str, Any], cpus: int | None = 8, memory: int | None = 32_768) -> dict[str, Any]:
    return report(service("a", "asr"), hardware={"cpus": cpus, "memoryMiB": memory, "gpus": list(gpus)})


@pytest.mark.parametrize(
    ("content", "needs", "expected"),
    [
        (machine(), {"cpus": 8}, "Ready"),
        (machine(), {"cpus": 9}, "8 CPUs"),
        (machine(cpus=None), {"cpus": 1}, "CPUs unknown: not in the agent's report"),
        (machine(), {"memoryMiB": 32_768}, "Ready"),
        (machine(), {"memoryMiB": 32_769}, "32768 MiB of memory"),
        (report(), {"memoryMiB": 1}, "MiB of memory unknown: not in the agent's report"),
        (report(), {"gpu": {}}, "GPUs unknown: no hardware in the agent's report"),
        (machine(), {"gpu": {}}, "no GPU reported"),
        (machine(L4), {"gpu": {}}, "Ready"),
        (machine({}), {"gpu": {}}, "Ready"),
        (machine({}), {"gpu": {"memoryMiB": 1}}, "model unknown (memory unknown)"),
        (machine({"memoryMiB": 1}), {"gpu": {"models": ["L4"]}}, "model unknown (1 MiB)"),
        (machine(L4), {"gpu": {"models": ["L4"]}}, "Ready"),
        (machine(L4), {"gpu": {"models": ["nvidia"]}}, "Ready"),
        (machine(L4), {"gpu": {"models": ["L40S", "NVIDIA L4"]}}, "Ready"),
        (machine(L4), {"gpu": {"models": ["--"]}}, "NVIDIA L4 (24576 MiB)"),
        (machine(L40S), {"gpu": {"models": ["L4"]}}, "NVIDIA L40S (46068 MiB)"),
        (machine(MI300X), {"gpu": {"models": ["AMD"], "memoryMiB": 190_000}}, "Ready"),
        (machine(MI300X), {"gpu": {"models": ["AMD MI300X"]}}, "AMD Instinct MI300X (196592 MiB)"),
        (machine(L4), {"gpu": {"memoryMiB": 24_576}}, "Ready"),
        (machine(L4), {"gpu": {"memoryMiB": 24_577}}, "NVIDIA L4 (24576 MiB)"),
        (machine(L4, L4), {"gpu": {"count": 2}}, "Ready"),
        # One has the model, another one the memory.
        (
            machine(L4, L40S),
            {"gpu": {"models": ["L4"], "memoryMiB": 40_000}},
            "NVIDIA L4 (24576 MiB), NVIDIA L40S (46068 MiB)",
        ),
        (
            machine(L4, L4, L4, L40S),
            {"gpu": {"models": ["L40S"], "count": 2}},
            "NVIDIA L4 (24576 MiB), NVIDIA L4 (24576 MiB), NVIDIA L4 (24576 MiB) and 1 more",
        ),
    ],
)
def test_hardware_meets_minimums_or_is_observed(content: dict[str, Any], needs: dict[str, Any], expected: str) -> None:
    found = view(content)
    unmet = [finding for finding in evaluate(found, spec(**needs)) if not finding.met]
    if expected == "Ready":
        assert (match(found, spec(**needs)).state, unmet) == ("Ready", [])
    else:
        assert match(found, spec(**needs)).criterion is Criterion.HARDWARE
        assert [finding.observed for finding in unmet] == [expected]


def test_each_minimum_is_one_requirement() -> None:
    needs = spec(cpus=16, memoryMiB=1, gpu={"models": ["L4", "L40S"], "memoryMiB": 20_000, "count": 2})
    found = [(f.required, f.met) for f in evaluate(view(machine(L4)), needs) if f.criterion is Criterion.HARDWARE]
    assert found == [
        ("at least 16 CPUs", False),
        ("at least 1 MiB of memory", True),
        ("at least 2 GPUs of model L4 or L40S with 20000 MiB", False),
    ]


def test_hardware_alone_is_a_requirement_and_without_a_minimum_it_is_none() -> None:
    assert match(view(machine()), spec(cpus=1)).state == "Ready"
    assert match(view(machine()), spec()).criterion is Criterion.EMPTY_REQUIREMENTS


@pytest.mark.parametrize("gpu", [{"count": 0}, {"models": [""]}, {"memoryMiB": 0}, {"count": 65}])
def test_a_requirement_out_of_bounds_is_invalid(gpu: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PoolSpec.model_validate({"requires": {"hardware": {"gpu": gpu}}})


def test_a_change_of_hardware_reaches_the_pools_that_require_hardware_and_no_others() -> None:
    cache = open_cache()
    cache.upsert(pool("gpu", requires=requires("asr", hardware={"gpu": {"models": ["L4"]}})), 0.0)
    cache.upsert(pool("asr", requires=requires("asr")), 0.0)
    cache.upsert(node("n1", machine(L4)), 0.0)
    assert cache.pools["gpu"].members == {"n1": "Ready"}
    versions = {name: entry.version for name, entry in cache.pools.items()}
    lost = cache.upsert(node("n1", {**machine(), "sequence": 2}, version=2), 0.0)
    assert lost == {Key(Kind.POOL, "gpu"), Key(Kind.NODE, "n1")}
    assert cache.pools["gpu"].criteria == {"n1": Criterion.HARDWARE}
    assert cache.pools["asr"].version == versions["asr"] != cache.pools["gpu"].version
    found = cache.upsert(node("n1", {**machine(L4), "sequence": 3}, version=3), 0.0)
    assert Key(Kind.POOL, "gpu") in found
    assert cache.pools["gpu"].members == {"n1": "Ready"}
    same = cache.upsert(node("n1", {**machine(L4), "sequence": 4}, version=4), 0.0)
    assert Key(Kind.POOL, "gpu") not in same


def test_a_removed_pool_is_not_matched_on_a_change_of_hardware() -> None:
    cache = open_cache()
    cache.upsert(pool("gpu", requires={"hardware": {"gpu": {}}}), 0.0)
    cache.upsert(node("n1", machine(L4)), 0.0)
    cache.delete(Kind.POOL, "gpu", "uid-gpu")
    assert cache.upsert(node("n1", {**machine(), "sequence": 2}, version=2), 0.0) <= {Key(Kind.NODE, "n1")}
