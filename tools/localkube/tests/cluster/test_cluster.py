"""The local cluster for real: `tools/kind` as pytest-kind and people call it, with processes, ports and files counted.

State, kubeconfig and home are in a temporary folder, so a person's clusters are never touched; only the cache of built
programs is the person's own, because building takes minutes.
"""

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil
import pytest

from localkube import lifecycle
from localkube.cluster import Cluster
from localkube.components import PROGRAMS
from localkube.config import ClusterConfig
from localkube.console import Console
from localkube.ports import free_ports
from localkube.process import wait_until
from localkube.tests.support.kind import FOREVER, KIND, Kind, own_kind


@pytest.fixture(scope="module")
def programs() -> Path:
    """The built programs; Go keeps its modules in the person's own home."""
    return Path(subprocess.check_output([KIND, "build", "node-image"], text=True).strip())


@pytest.fixture
def kind(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    yield from own_kind(tmp_path, programs, monkeypatch)


def _pid(name: str, program: str) -> int:
    pid = Cluster(name).process(program).pid
    assert pid, f"{program} of {name} does not run"
    return pid


def _kill(name: str, program: str) -> None:
    pid = _pid(name, program)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: Cluster(name).process(program).pid is None, 10)


def test_a_cluster_is_made_used_and_forgotten(kind: Kind) -> None:
    kind.run("create", "cluster", "--name=one")
    assert kind.run("get", "clusters") == "one\n"
    assert kind.ask("get", "serviceaccount", "default", "-o", "name", context="one") == "serviceaccount/default\n"
    assert "v1.37." in kind.ask("version", context="one")
    status, out, err = kind.result("create", "cluster", "--name", "one")
    assert (status, out) == (1, "")
    assert 'node(s) already exist for a cluster with the name "one"' in err
    assert kind.ask("get", "namespaces", "-o", "name", context="one").count("namespace/") == 4
    assert "server: https://127.0.0.1:" in kind.run("get", "kubeconfig", "--name=one")
    assert kind.result("get", "nodes", "--name=one") == (0, "", 'No kind nodes found for cluster "one".\n')

    kind.run("delete", "cluster", "--name=one")
    assert kind.left() == ([], [])
    assert "kind-one" not in (kind.home / ".kube" / "config").read_text()
    kind.run("delete", "cluster", "--name=one")


def test_nothing_listens_beyond_loopback_and_nothing_is_readable_by_others(kind: Kind) -> None:
    kind.run("create", "cluster", "--name", "one")
    listening = {
        (process.name(), connection.laddr.ip)
        for process in kind.processes()
        for connection in process.net_connections("all")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("etcd", "127.0.0.1"), ("kube-apiserver", "127.0.0.1")}
    files = [kind.state, *kind.state.rglob("*")]
    assert len(files) > 30
    assert not [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert stat.S_IMODE((kind.home / ".kube" / "config").stat().st_mode) == 0o600


def test_who_presents_no_certificate_gets_nothing(kind: Kind) -> None:
    kind.run("create", "cluster", "--name", "one")
    facts = Cluster("one").facts()
    assert facts
    api = [
        "get",
        "--raw",
        "/version",
        f"--server=https://127.0.0.1:{facts.ports.apiserver}",
        "--insecure-skip-tls-verify",
    ]
    anonymous = subprocess.run(
        [kind.kubectl, "--kubeconfig=/dev/null", "--username=intruder", "--password=none", *api],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (anonymous.returncode, "Unauthorized" in anonymous.stderr) == (1, True)


def test_two_are_created_at_once_and_do_not_meet(kind: Kind) -> None:
    both = [kind.start("create", "cluster", "--name", name) for name in ("one", "two")]
    for process in both:
        _, err = process.communicate(timeout=FOREVER)
        assert process.returncode == 0, err
    assert kind.run("get", "clusters") == "one\ntwo\n"
    kind.ask("create", "namespace", "only-here", context="one")
    assert "only-here" not in kind.ask("get", "namespaces", "-o", "name", context="two")
    kind.run("delete", "cluster", "--name", "one")
    assert kind.run("get", "clusters") == "two\n"
    assert kind.ask("get", "--raw", "/readyz", context="two") == "ok"
    assert len(kind.processes()) == len(PROGRAMS)
    kind.run("delete", "clusters", "two", "never-was")
    assert kind.left() == ([], [])


@pytest.mark.parametrize("victims", [["etcd"], ["kube-scheduler"], list(PROGRAMS)])
def test_a_killed_cluster_is_recognised_and_replaced(kind: Kind, victims: list[str]) -> None:
    kind.run("create", "cluster", "--name", "one")
    kind.ask("create", "namespace", "of-the-first", context="one")
    for program in victims:
        _kill("one", program)
    status, out, err = kind.result("get", "clusters")
    assert (status, out) == (0, "")
    assert f'"one" is dead (gone: {", ".join(victims)})' in err
    kind.run("create", "cluster", "--name", "one")
    assert "of-the-first" not in kind.ask("get", "namespaces", "-o", "name", context="one")
    assert len(kind.processes()) == len(PROGRAMS)
    _kill("one", victims[0])
    kind.run("delete", "cluster", "--name", "one")
    assert kind.left() == ([], [])


def test_the_api_server_can_be_away_for_a_while(kind: Kind) -> None:
    kind.run("create", "cluster", "--name", "one")
    cluster = Cluster("one")
    before = _pid("one", "kube-apiserver")
    cluster.process("kube-apiserver").stop()
    with pytest.raises(subprocess.CalledProcessError):
        kind.ask("get", "--raw", "/readyz", context="one")
    assert kind.run("get", "clusters") == "one\n"
    cluster.process("kube-apiserver").start()
    cluster.wait_ready()
    assert _pid("one", "kube-apiserver") != before
    assert kind.ask("get", "namespace", "default", "-o", "name", context="one") == "namespace/default\n"


def test_a_failing_start_shows_the_log_and_leaves_nothing(kind: Kind, tmp_path: Path) -> None:
    config = tmp_path / "kind.yaml"
    config.write_text(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nname: one\nfeatureGates: {NoSuchGate: true}\n"
    )
    status, out, err = kind.result("create", "cluster", "--config", str(config))
    assert (status, out) == (1, "")
    assert "ERROR: failed to create cluster: kube-apiserver has exited; the end of its log:" in err
    assert "unrecognized feature gate: NoSuchGate" in err
    assert kind.left() == ([], [])
    assert not (kind.home / ".kube").exists()


@pytest.mark.parametrize("victim", [0, 1], ids=["apiserver", "etcd"])
def test_a_port_that_a_stranger_takes_first_is_given_up(
    kind: Kind, victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[list[int]] = []
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]

        def choose(count: int, others: Collection[int]) -> list[int]:
            chosen = free_ports(count, others)
            if not answers:
                chosen[victim] = taken
            answers.append(chosen)
            return chosen

        monkeypatch.setattr(lifecycle, "free_ports", choose)
        monkeypatch.delenv("KUBECONFIG", raising=False)
        lifecycle.create(Cluster("one"), lifecycle.Request(ClusterConfig()), Console(quiet=True))
    assert len(answers) == 2
    assert kind.run("get", "clusters") == "one\n"
    assert len(kind.processes()) == len(PROGRAMS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_create_leaves_nothing(kind: Kind, number: signal.Signals) -> None:
    create = kind.start("create", "cluster", "--name", "one")
    assert wait_until(lambda: len(kind.processes()) > 1, 60)
    create.send_signal(number)
    assert "ERROR: interrupted" in create.communicate(timeout=60)[1]
    assert create.returncode == 130
    assert kind.left() == ([], [])


def test_a_create_that_was_killed_is_cleaned_up_by_the_next(kind: Kind) -> None:
    create = kind.start("create", "cluster", "--name", "one")
    assert wait_until(lambda: len(kind.processes()) > 1, 60)
    create.kill()
    create.communicate()
    assert kind.run("get", "clusters") == ""
    kind.run("create", "cluster", "--name", "one")
    assert len(kind.processes()) == len(PROGRAMS)


def test_a_config_file_reaches_the_api_server(kind: Kind, tmp_path: Path) -> None:
    config = tmp_path / "kind.yaml"
    text = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": "one",
        "nodes": [{"role": "control-plane"}],
        "runtimeConfig": {"batch/v1": "false"},
    }
    config.write_text(json.dumps(text))
    kind.run("create", "cluster", "--config", str(config), "--kubeconfig", str(tmp_path / "own"), "--wait=2m")
    assert not (kind.home / ".kube").exists()
    kind.environment["KUBECONFIG"] = str(tmp_path / "own")
    versions = kind.ask("api-versions", context="one").split()
    assert "apps/v1" in versions
    assert "batch/v1" not in versions
