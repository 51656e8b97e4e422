"""The pure parts of the local cluster's worker: addresses, configuration, images, what it asks of the machine."""

import json
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localkube import cgroups, cli, config, paths, requirements, routes
from localkube.certs import write_certificates
from localkube.cluster import Cluster, Facts
from localkube.components import PROGRAMS, Layout, Ports, command_lines
from localkube.errors import KindError
from localkube.exporting import export
from localkube.worker import SUBNETS, Worker, cgroup_name, free_subnets, link_name
from localkube.worker_programs import WORKER_PROGRAMS, config_files, inner_command_lines, node_folder

WORKER = Worker("one-worker", 200, {"a": "b", "hotpool.dev/c": "d"})

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "pki"
    write_certificates(folder, WORKER)
    return folder


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, Path("/bin"), Ports(apiserver=1, etcd=2, etcd_peer=3), worker=WORKER)


def test_a_config_may_ask_for_a_worker_with_labels() -> None:
    header = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"
    text = header + "nodes: [{role: control-plane}, {role: worker, image: 'kindest/node:v1.37.0', labels: {a.b/c: d}}]"
    assert config.load(text, "f") == config.ClusterConfig(
        images=("kindest/node:v1.37.0",), worker_labels={"a.b/c": "d"}
    )
    assert config.load(header + "nodes: [{role: worker}, {}]", "f").worker_labels == {}
    assert config.load(header + "nodes: [{}]", "f").worker_labels is None


def test_addresses_of_a_worker_do_not_meet() -> None:
    parts = [IPv4Network(f"{WORKER.host}/30", strict=False), WORKER.pods, WORKER.services]
    assert all(part.subnet_of(WORKER.network) for part in parts)
    assert not any(one.overlaps(other) for one in parts for other in parts if one is not other)
    assert WORKER.address in parts[0]


def test_a_network_that_the_host_routes_already_is_not_taken() -> None:
    printed = '[{"dst":"default"},{"dst":"10.200.3.0/24"},{"type":"local","dst":"10.202.0.9"},{"dst":"10.204.0.0/14"}]'
    free = free_subnets(routes.destinations(printed))
    assert free[:3] == [201, 203, 208]
    assert free_subnets([IPv4Network("10.0.0.0/8")]) == []
    assert routes.destinations("") == []
    assert free_subnets([]) == list(SUBNETS)


def test_names_on_the_host_are_those_of_one_folder_and_fit_the_kernel() -> None:
    one, other = Path("/srv/a/one"), Path("/srv/b/one")
    assert link_name(one) != link_name(other)
    assert cgroup_name(one) != cgroup_name(other)
    assert len(link_name(one)) < 16


HYBRID = """\
31 24 0:27 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
33 31 0:29 / /sys/fs/cgroup/unified rw master:1 - cgroup2 cgroup2 rw
"""


def test_control_groups_are_found_where_they_are_mounted() -> None:
    folder = Path("/sys/fs/cgroup")
    assert cgroups.hierarchies(HYBRID) == {folder / "cpu": "cgroup", folder / "unified": "cgroup2"}
    assert cgroups.hierarchies("30 24 0:27 / /sys/fs/cgroup rw - cgroup2 none rw\n") == {folder: "cgroup2"}


@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
def test_a_control_group_is_made_where_it_limits_and_removed_with_all_below(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On plain folders, which have no limits; the worker's tests show it on this machine's own hierarchies."""
    (tmp_path / "h").mkdir()
    for file, text in {"cgroup.controllers": "cpu io memory", "cgroup.subtree_control": ""}.items():
        (tmp_path / "h" / file).write_text(text)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / {tmp_path / 'h'} rw - {kind} x rw\n")
    monkeypatch.setattr(cgroups, "_MOUNTS", mounts)
    cgroups.create("mine")
    (tmp_path / "h" / "mine" / "pods" / "pod").mkdir(parents=True)
    (tmp_path / "h" / "others").mkdir()
    assert cgroups.leftovers("mine") == [tmp_path / "h" / "mine"]
    granted = (tmp_path / "h" / "cgroup.subtree_control").read_text()
    assert granted == ("+memory" if kind == "cgroup2" else "")
    cgroups.remove("mine")
    assert sorted(path.name for path in (tmp_path / "h").iterdir() if path.is_dir()) == ["others"]


def test_who_is_not_root_is_told_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    wanted = tmp_path / "kind.yaml"
    wanted.write_text("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{}, {role: worker}]\n")
    assert cli.main(["create", "cluster", "--config", str(wanted)]) == 1
    assert "a cluster with a worker node needs root" in capsys.readouterr().err
    assert not Cluster("kind").exists


def test_all_missing_programs_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "_find", lambda program: None if program in {"runc", "nft"} else "/bin/true")
    with pytest.raises(KindError, match=r"needs runc, nft: run 'apt-get install runc nftables'$"):
        requirements.check()
    monkeypatch.setattr(requirements, "_find", lambda _: "/bin/true")
    with pytest.raises(KindError, match="built without seccomp"):
        requirements.check()


def test_folders_that_the_node_would_hide_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "_find", lambda _: "/bin/true")
    monkeypatch.setattr(requirements, "_output", lambda _: "libseccomp: 2.5")
    requirements.check()
    (tmp_path / "link").symlink_to("/var/lib")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "link"))
    with pytest.raises(KindError, match=r"cannot use .*link/hotpool/clusters: set XDG_STATE_HOME and XDG_CACHE_HOME"):
        requirements.check()


def _certificate(pki: Path, stem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((pki / f"{stem}.crt").read_bytes())


@pytest.mark.parametrize(
    ("stem", "user", "group", "usage"),
    [
        ("kubelet", "system:node:one-worker", ["system:nodes"], ExtendedKeyUsageOID.CLIENT_AUTH),
        ("kubelet-server", "system:node:one-worker", ["system:nodes"], ExtendedKeyUsageOID.SERVER_AUTH),
        ("kube-proxy", "system:kube-proxy", [], ExtendedKeyUsageOID.CLIENT_AUTH),
        ("dns", "system:coredns", [], ExtendedKeyUsageOID.CLIENT_AUTH),
        ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", [], ExtendedKeyUsageOID.CLIENT_AUTH),
    ],
)
def test_each_program_of_the_worker_is_somebody_of_its_own(
    pki: Path, stem: str, user: str, group: list[str], usage: x509.ObjectIdentifier
) -> None:
    certificate = _certificate(pki, stem)
    certificate.verify_directly_issued_by(_certificate(pki, "ca"))
    subject = certificate.subject
    assert [name.value for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [user]
    assert [name.value for name in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == group
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]


def test_servers_are_named_as_their_clients_call_them(pki: Path) -> None:
    names = {
        stem: _certificate(pki, stem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for stem in ("apiserver", "kubelet-server")
    }
    api = set(names["apiserver"].get_values_for_type(x509.IPAddress))
    assert api == {IPv4Address("127.0.0.1"), WORKER.services[1], WORKER.address}
    assert names["kubelet-server"].get_values_for_type(x509.IPAddress) == [WORKER.address]


def test_the_api_server_stays_on_loopback_and_is_announced_where_the_relay_listens(layout: Layout) -> None:
    line = command_lines(layout)["kube-apiserver"]
    assert "--bind-address=127.0.0.1" in line
    assert f"--advertise-address={WORKER.address}" in line
    assert f"--service-cluster-ip-range={WORKER.services}" in line
    assert not [word for word in line if "endpoint-reconciler" in word]


def test_the_programs_inside_know_the_node_and_its_labels(layout: Layout) -> None:
    lines = inner_command_lines(layout)
    assert {"node", "relay", *lines} == set(WORKER_PROGRAMS)
    assert "--hostname-override=one-worker" in lines["kubelet"]
    assert "--node-labels=a=b,hotpool.dev/c=d" in lines["kubelet"]


def test_the_kubelet_lets_nobody_in_without_asking_and_nothing_listens_for_all(layout: Layout) -> None:
    files = config_files(layout, "/usr/sbin/runc")
    kubelet, proxy = (yaml.safe_load(files[f"{name}.yaml"]) for name in ("kubelet", "kube-proxy"))
    assert (kubelet["authentication"]["anonymous"], kubelet["authorization"]) == (
        {"enabled": False},
        {"mode": "Webhook"},
    )
    assert kubelet["cgroupRoot"] == f"/{cgroup_name(layout.folder)}"
    assert {kubelet["address"], proxy["healthzBindAddress"].partition(":")[0]} == {str(WORKER.address)}
    assert f"bind {WORKER.address}" in files["Corefile"]
    assert str(IPv4Address(0)) not in json.dumps([kubelet, proxy, files["Corefile"], files["containerd.toml"]])


def test_feature_gates_reach_the_worker(layout: Layout) -> None:
    gated = Layout(layout.folder, layout.binaries, layout.ports, {"A": True}, {}, WORKER)
    files = config_files(gated, "runc")
    assert [yaml.safe_load(files[f"{name}.yaml"])["featureGates"] for name in ("kubelet", "kube-proxy")] == 2 * [
        {"A": True}
    ]


def test_a_worker_is_remembered_and_its_programs_count() -> None:
    cluster = Cluster("one")
    paths.make_private(cluster.folder)
    cluster.remember(Facts(Ports(1, 2, 3)))
    assert [process.program for process in cluster.processes()] == list(PROGRAMS)
    cluster.remember(Facts(Ports(1, 2, 3), ready=True, worker=WORKER))
    assert cluster.worker() == WORKER
    assert [process.program for process in cluster.processes()] == [*PROGRAMS, *WORKER_PROGRAMS]


def test_the_logs_of_a_dead_cluster_are_exported_and_its_keys_are_not(tmp_path: Path) -> None:
    cluster = Cluster("one")
    pods = node_folder(cluster.folder) / "var" / "log" / "pods" / "n_p_u" / "c"
    for folder in (cluster.folder / "logs", pods, cluster.folder / "pki"):
        folder.mkdir(parents=True)
    (cluster.folder / "logs" / "etcd.log").write_text("e")
    (pods / "0.log").write_text("p")
    (cluster.folder / "pki" / "ca.key").write_text("secret")
    export(cluster, tmp_path / "out")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"etcd.log", "pods/n_p_u/c/0.log"}
