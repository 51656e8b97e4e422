"""A worker node comes and goes, and leaves nothing on its host, whatever was killed."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from localkube.cluster import ALL_PROGRAMS, Cluster
from localkube.process import wait_until
from localkube.tests.support.kind import WITH_WORKER, Kind, own_kind
from localkube.tests.support.pods import pod
from localkube.tests.support.traces import Traces, look

WAITS = 60


@pytest.fixture
def kind(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    """A home of its own, from which every cluster is deleted in the end."""
    yield from own_kind(tmp_path, programs, monkeypatch)


@pytest.mark.parametrize(
    "victims", [[], ["node"], ["containerd"], ["kubelet"], ["relay", "kube-proxy", "dns"], list(ALL_PROGRAMS)], ids=str
)
def test_a_deleted_cluster_leaves_nothing_whatever_was_killed(kind: Kind, archive: Path, victims: list[str]) -> None:
    before = look(Cluster("one").folder)
    kind.run("create", "cluster", "--name=one", f"--config={WITH_WORKER}")
    kind.run("load", "image-archive", str(archive), "--name=one")
    _run_on(kind, "auth", "whoami")
    for program in victims:
        _kill(program)
    status, out, err = kind.result("get", "clusters")
    assert (status, out) == (0, "" if victims else "one\n")
    assert all(program in err for program in victims)
    kind.run("delete", "cluster", "--name=one")
    _assert_clean(kind, before)


@pytest.mark.parametrize("program", ["node", "containerd", "dns"])
def test_a_create_that_was_killed_leaves_nothing_after_delete(kind: Kind, program: str) -> None:
    before = look(Cluster("one").folder)
    create = kind.start("create", "cluster", "--name=one", f"--config={WITH_WORKER}")
    assert wait_until(lambda: Cluster("one").process(program).pid is not None, 2 * WAITS)
    create.kill()
    create.communicate()
    kind.run("delete", "cluster", "--name=one")
    _assert_clean(kind, before)


def test_an_interrupted_create_leaves_nothing(kind: Kind) -> None:
    before = look(Cluster("one").folder)
    create = kind.start("create", "cluster", "--name=one", f"--config={WITH_WORKER}")
    assert wait_until(lambda: Cluster("one").process("kubelet").pid is not None, 2 * WAITS)
    create.send_signal(signal.SIGINT)
    assert "ERROR: interrupted" in create.communicate(timeout=WAITS)[1]
    _assert_clean(kind, before)


def test_two_clusters_with_workers_do_not_meet_and_nothing_listens_for_others(kind: Kind) -> None:
    before = _listening()
    for name in ("one", "two"):
        kind.run("create", "cluster", "--name", name, f"--config={WITH_WORKER}")
        assert kind.ask("get", "nodes", "-o", "name", context=name) == f"node/{name}-worker\n"
    assert {address.rpartition(":")[0] for address in _listening() - before} == {"127.0.0.1"}
    kind.run("delete", "cluster", "--name=one")
    assert kind.run("get", "nodes", "--all-clusters") == "two-worker\n"
    wait = ("wait", "--for=condition=Ready", "node/two-worker", "--timeout=10s")
    assert "condition met" in kind.ask(*wait, context="two")


def test_the_kubelet_can_be_away_for_a_while(kind: Kind) -> None:
    kind.run("create", "cluster", "--name=one", f"--config={WITH_WORKER}")
    lease = ("-n", "kube-node-lease", "get", "lease", "one-worker", "-o", "jsonpath={.spec.renewTime}")
    kind.ask("-n", "kube-node-lease", "wait", "--for=create", "lease/one-worker", context="one")
    kubelet = Cluster("one").process("kubelet")
    before = kubelet.pid
    kubelet.stop()
    assert kind.run("get", "clusters") == "one\n"
    stamp = kind.ask(*lease, context="one")
    kubelet.start()
    assert kubelet.pid not in {None, before}
    assert wait_until(lambda: kind.ask(*lease, context="one") > stamp, WAITS)


def _run_on(kind: Kind, *words: str) -> None:
    """Run a pod in a cluster of its own, beside one that never ends."""
    environment = {**kind.environment, "KUBECONFIG": str(kind.home / ".kube" / "config")}
    forever = pod("forever", "proxy")
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [forever, pod("once", *words)]})
    subprocess.run([kind.kubectl, "create", "-f", "-"], input=text, text=True, env=environment, check=True)
    kind.ask("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/once", f"--timeout={WAITS}s", context="one")
    kind.ask("wait", "--for=condition=Ready", "pod/forever", f"--timeout={WAITS}s", context="one")


def _kill(program: str) -> None:
    pid = Cluster("one").process(program).pid
    if pid:  # Else it died with the node.
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: Cluster("one").process(program).pid is None, 10)


def _assert_clean(kind: Kind, before: Traces) -> None:
    assert kind.left() == ([], [])
    # A namespace outlives its last process for a moment.
    wait_until(lambda: not look(Cluster("one").folder).beyond(before), 5)
    assert look(Cluster("one").folder).beyond(before) == {}


def _listening() -> set[str]:
    """Return all listening addresses in the host's own network namespace."""
    sockets = psutil.net_connections("inet")
    return {f"{one.laddr[0]}:{one.laddr[1]}" for one in sockets if one.laddr and one.status == psutil.CONN_LISTEN}
