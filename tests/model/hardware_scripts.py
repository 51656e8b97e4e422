"""Hardware in random scripts: what agents report, and pools that require some of it (requirement D2).

Added to a finished script from a seed of its own, so that its other steps do not depend on it.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]
Step = tuple[Any, ...]

_SHARE = 0.5
"""Share of the scripts with hardware."""
_CHANGE_SHARE = 0.1
"""Reports with other hardware and the same services, per other step."""
MODELS = ("NVIDIA L4", "NVIDIA L40S", "AMD Instinct MI300X", None)


def with_hardware(steps: Iterable[Step], seed: int, nodes: list[str]) -> Iterator[Step]:
    """Yield the steps, in half of the scripts with hardware."""
    rng = random.Random(f"{seed} hardware")  # noqa: S311 - a fixed script, no secret
    if rng.random() > _SHARE:
        yield from steps
        return
    for step in steps:
        if step[0] == "node" and rng.random() < 0.9:
            yield ("hardware", step[1], _hardware(rng))
        if rng.random() < _CHANGE_SHARE:
            yield ("hardware", name := rng.choice(nodes), _hardware(rng))
            yield ("again", name)
        yield ("put", _requiring(step[1], rng)) if step[0] == "put" else step


def _hardware(rng: random.Random) -> Json | None:
    if rng.random() < 0.1:
        return None
    gpus = [{"model": rng.choice(MODELS), "memoryMiB": rng.choice([None, 100, 200])} for _ in range(rng.randint(0, 3))]
    return {"cpus": rng.choice([None, 4, 8]), "memoryMiB": rng.choice([None, 1000, 2000]), "gpus": gpus}


def _requiring(body: Json, rng: random.Random) -> Json:
    """Return a pool, or a generator's pools, that sometimes require hardware."""
    spec = body["spec"]
    if "rule" not in spec:
        return {**body, "spec": {**spec, "requires": _with_minimums(spec.get("requires"), rng)}}
    pools = spec["template"]["spec"]
    template = {"spec": {**pools, "requires": _with_minimums(pools.get("requires"), rng)}}
    return {**body, "spec": {**spec, "template": template}}


def _with_minimums(requires: Json | None, rng: random.Random) -> Json:
    minimums: Json = {}
    if rng.random() < 0.3:
        minimums["cpus"] = rng.choice([4, 5, 8])
    if rng.random() < 0.2:
        minimums["memoryMiB"] = rng.choice([1000, 2000])
    if rng.random() < 0.4:
        minimums["gpu"] = {}
        if rng.random() < 0.5:
            minimums["gpu"]["models"] = rng.sample(["L4", "nvidia", "Instinct MI300X", "L40S"], rng.randint(1, 2))
        if rng.random() < 0.5:
            minimums["gpu"]["memoryMiB"] = rng.choice([100, 200])
        if rng.random() < 0.3:
            minimums["gpu"]["count"] = 2
    return {**(requires or {}), **({"hardware": minimums} if minimums else {})}
