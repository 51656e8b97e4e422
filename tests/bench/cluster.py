"""A cluster of the bench's own, ended afterwards. Used by the parts that need a real API server."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from localfleet.fleet import GROUP, Fleet
from localfleet.kind import kind_program, kubectl_program
from localfleet.redis_server import RedisServer

CLUSTER: Final = "hotpool-bench"
NAMESPACE: Final = "bench"


@contextmanager
def fleets(number: int = 1) -> Iterator[tuple[list[Fleet], Path]]:
    """So many fleets on one new namespace, each for an operator of its own, with one Redis; and the kubeconfig."""
    kind = kind_program()
    kubeconfig = Path(tempfile.mkdtemp(prefix="hotpool-bench-")) / "kubeconfig"
    subprocess.run([str(kind), "create", "cluster", "--name", CLUSTER, "--kubeconfig", str(kubeconfig)], check=True)
    try:
        with RedisServer() as redis:
            made = [Fleet(kubeconfig, kubectl_program(kind), NAMESPACE, redis.url) for _ in range(number)]
            made[0].install()
            try:
                yield made, kubeconfig
            finally:
                for fleet in made:
                    fleet.close()
    finally:
        subprocess.run([str(kind), "delete", "cluster", "--name", CLUSTER], check=True)


def pools(number: int) -> list[dict[str, Any]]:
    """Pools that require the types `type-0`, `type-1`, and so on."""
    head = {"apiVersion": "/".join(GROUP), "kind": "NodePool"}
    return [
        {**head, "metadata": {"name": f"pool-{n}"}, "spec": {"requires": {"types": [{"type": f"type-{n}"}]}}}
        for n in range(number)
    ]
