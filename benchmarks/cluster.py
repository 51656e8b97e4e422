"""A cluster for a benchmark, deleted afterwards."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from localfleet.clusters import cluster
from localfleet.fleet import GROUP, Fleet
from localfleet.kind import kind_program, kubectl_program
from localfleet.redis_server import RedisServer

CLUSTER: Final = "hotpool-bench"
NAMESPACE: Final = "bench"


@contextmanager
def fleets(number: int = 1, values: Mapping[str, Any] | None = None) -> Iterator[tuple[list[Fleet], Path]]:
    """Yield fleets in one new namespace, each for an operator of its own, with one Redis; and the kubeconfig.

    `values`: of the chart, for the rights of the operators.
    """
    kind = kind_program()
    with ExitStack() as stack:
        kubeconfig = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hotpool-bench-"))) / "kubeconfig"
        stack.enter_context(cluster(CLUSTER, kubeconfig, kind))
        redis = stack.enter_context(RedisServer())
        created = [Fleet(kubeconfig, kubectl_program(kind), NAMESPACE, redis.url) for _ in range(number)]
        for fleet in created:
            stack.callback(fleet.close)
        created[0].install(values)
        yield created, kubeconfig


def pools(number: int, *, services: bool = False) -> list[dict[str, Any]]:
    """Return pools that require the types `type-0`, `type-1`, and so on. `services`: they ask for a Service."""
    return [
        _pool(n, {"service": {"ports": [{"type": f"type-{n}", "port": 80}]}} if services else {}) for n in range(number)
    ]


def _pool(number: int, more: Mapping[str, Any]) -> dict[str, Any]:
    spec = {"requires": {"types": [{"type": f"type-{number}"}]}, **more}
    return {"apiVersion": "/".join(GROUP), "kind": "NodePool", "metadata": {"name": f"pool-{number}"}, "spec": spec}
