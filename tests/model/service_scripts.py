"""Services in random scripts: pools that ask for one, and Services that people edit (requirement D12).

The other steps of a seed do not depend on them.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]
Step = tuple[Any, ...]

SERVICE_EDITS = ("selector", "label", "owner", "ports", "term", "delete")
SLICE_EDITS = ("empty", "stranger", "label", "service", "owner", "delete")
_POOL_SHARE, _CHANGE_SHARE, _EDIT_SHARE = 0.6, 0.06, 0.06


def with_services(steps: Iterable[Step], seed: int) -> Iterator[Step]:
    """Yield the steps, with a Service for most of the pools, changes of these, and edits by hand."""
    rng = random.Random(f"services {seed}")  # noqa: S311 - a fixed script, no secret
    pools = list[str]()
    for step in steps:
        if pools and rng.random() < _CHANGE_SHARE:
            name, change = rng.choice(pools), _service(rng) if rng.random() < 0.7 else None
            yield ("edit", "nodepools", name, {"spec": {"service": None}})  # a merge patch keeps what it does not name
            yield ("edit", "nodepools", name, {"spec": {"service": change}})
        if rng.random() < _EDIT_SHARE:
            yield ("service", rng.randint(0, 50), rng.choice(SERVICE_EDITS))
        if rng.random() < _EDIT_SHARE:
            yield ("endpointslice", rng.randint(0, 50), rng.choice(SLICE_EDITS))
        if step[0] == "put" and step[1]["kind"] == "NodePool":
            pools.append(step[1]["metadata"]["name"])
            wanted = _service(rng) if rng.random() < _POOL_SHARE else None
            yield ("put", {**step[1], "spec": {**step[1]["spec"], **({"service": wanted} if wanted else {})}})
        else:
            yield step


def _service(rng: random.Random) -> Json:
    types = rng.sample(["asr", "nmt", "tts", "semantic", "llm"], rng.randint(1, 3))
    service: Json = {"ports": [{"type": type_, "port": 80 + number} for number, type_ in enumerate(types)]}
    if rng.random() < 0.3:
        service["name"] = rng.choice(["shared", "speech"])
    if rng.random() < 0.2:
        service["clusterIP"] = "None"
    return service
