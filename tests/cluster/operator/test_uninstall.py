"""docs/how-to/uninstall.md on a real API server and a real Redis: a fleet goes, what belongs to others stays."""

import re
import shlex
from typing import Any

from click.testing import CliRunner
from redis import Redis
from tests.support.fleet_objects import pool, published

from hotpool.cli.program import app
from localfleet.catalogue import service
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY
from localfleet.process import wait_for

PAGE = (REPOSITORY / "docs/how-to/uninstall.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
KINDS = "nodepoolgenerators,nodepools,nodepoolslices,nodecapabilities,leases,services,endpointslices"
OURS = f"{KINDS},serviceaccounts,roles,rolebindings,secrets"


def lease(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "labels": labels}}


def test_the_commands_remove_the_fleet_and_leave_what_belongs_to_others(fleet: Fleet) -> None:
    before = set(fleet.kubectl("get", OURS, "-o", "name").split())
    fleet.install_agents()
    others = {"someone-elses", "hotpool-like"}
    fleet.apply(*(lease(name, app="other") for name in others))
    fleet.apply(pool("llm", types=[{"type": "llm"}]))
    fleet.start_operator()
    fleet.start_agent("edge-1", [service("qwen", "llm")], debounce=0.2)
    fleet.wait_leading()
    wait_for("the node is in the pool", lambda: published(fleet, "llm", {"edge-1": "Ready"}), 60)
    enrolled = ["enroll", "edge-2", "-n", fleet.namespace, "--kubeconfig", str(fleet.admin)]
    assert CliRunner().invoke(app, [*enrolled, "-o", str(fleet.folder / "edge-2")]).exit_code == 0
    for process in (fleet.agents["edge-1"], fleet.operator):
        assert process
        process.stop()

    (pattern,) = re.findall(r"--pattern '(.*?)'", PAGE)
    with Redis.from_url(fleet.redis_url, decode_responses=True) as redis:
        keys = {key for key in redis.scan_iter("*") if f":{fleet.namespace}}}" in key}
        assert keys == set(redis.scan_iter(pattern.replace("speech", fleet.namespace)))
        assert len(keys) > 3

    for command in COMMANDS:
        if command.startswith("kubectl delete") and "crds/" not in command:
            fleet.kubectl(*shlex.split(command.replace("-n speech", ""))[1:])
    left = set(fleet.kubectl("get", OURS, "-o", "name").split()) - before
    leases = {name.partition("/")[2] for name in left if name.startswith("lease.")}
    assert leases == others
    assert not [name for name in left if "hotpool.dev" in name.partition("/")[0]]
    assert "edge-2" not in " ".join(left)
