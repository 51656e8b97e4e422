"""The pure parts of the local cluster: what it accepts, what it writes, what it asks the programs to do."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localkube import build, cli, config, golang, kubeconfig, paths, ports
from localkube.certs import write_certificates
from localkube.cluster import Cluster, Facts, all_clusters
from localkube.components import PROGRAMS, Layout, Ports, command_lines
from localkube.console import Console
from localkube.duration import parse_duration
from localkube.errors import KindError
from localkube.locks import locked

TOOLS = Path(__file__).parents[3]

HEADER = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "pki"
    write_certificates(folder)
    return folder


@pytest.mark.parametrize(
    "words", [["--name=x", "--wait=90s"], ["--name", "x", "--wait", "1m30s"], ["-n", "x", "--wait", "1.5m"]]
)
def test_flags_are_taken_in_every_form_of_kind(words: list[str]) -> None:
    parsed = cli.parser().parse_args(["create", "cluster", *words])
    assert (parsed.name, parsed.wait) == ("x", 90.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["create"], "required: WHAT"),
        (["create", "cluster", "--retain"], "unrecognized arguments: --retain"),
        (["create", "cluster", "--wait", "5"], "not a duration: '5'"),
        (["create", "cluster", "--image", "kindest/node:v1.30.0"], "has Kubernetes v1."),
        (["create", "cluster", "--config", "missing.yaml"], "cannot read the config file missing.yaml"),
        (["create", "cluster", "--name", "Upper"], "'Upper' is not a valid cluster name"),
        (["delete", "clusters"], "no cluster names provided"),
        (["load", "docker-image", "--name", "x", "image"], '"kind load docker-image" is not supported'),
        (["load", "image-archive", "x.tar", "--name", "absent"], 'no nodes found for cluster "absent"'),
        (["export", "logs"], 'unknown cluster "kind"'),
        (["completion", "bash"], '"kind completion" is not supported'),
        (
            ["get", "kubeconfig", "--name", "absent"],
            "could not locate any control plane nodes for cluster named 'absent'",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_fails(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert (out, err.startswith("ERROR: ")) == ("", True)
    assert message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "clusters"], "No kind clusters found.\n"),
        (["get", "nodes"], 'No kind nodes found for cluster "kind".\n'),
        (["delete", "cluster", "--name", "absent"], 'Deleting cluster "absent" ...\n'),
        (["-q", "get", "clusters"], ""),
    ],
)
def test_nothing_to_show_is_a_success_and_told_on_stderr_only(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    assert tuple(capsys.readouterr()) == ("", message)


def test_the_name_comes_from_the_environment_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIND_CLUSTER_NAME", "other")
    cli.main(["get", "nodes"])
    cli.main(["get", "nodes", "--name", "given"])
    assert capsys.readouterr().err.count('"other"') == 1


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "-flag", "a/b", "A", "", "a\n"])
def test_a_name_cannot_leave_the_folder_of_clusters(name: str) -> None:
    with pytest.raises(KindError, match="is not a valid cluster name"):
        Cluster(name)


def test_durations_read_as_in_go() -> None:
    assert [parse_duration(text) for text in ("0", "0s", "1h1m1.5s", "250ms")] == [0, 0, 3661.5, 0.25]


def test_the_script_runs_through_a_link_from_any_folder_even_one_with_a_module_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "localkube.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "link").symlink_to(TOOLS / "kind")
    done = subprocess.run(["./link", "version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, build.kubernetes_version() in done.stdout, done.stderr) == (0, True, "")


def test_the_script_names_the_missing_environment(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / "kind"
    script.write_bytes((TOOLS / "kind").read_bytes())
    done = subprocess.run(["/bin/bash", script, "version"], capture_output=True, text=True, check=False)
    assert (done.returncode, "make venv" in done.stderr) == (1, True)


def test_a_config_says_what_this_cluster_can_honour() -> None:
    text = HEADER + (
        "name: mine\nnodes: [{role: control-plane}]\nfeatureGates: {Some: true, Other: false}\n"
        'runtimeConfig: {"api/alpha": "true"}\nnetworking: {apiServerPort: 6443, apiServerAddress: 127.0.0.1}\n'
    )
    assert config.load(text, "f") == config.ClusterConfig(
        "mine", {"Some": True, "Other": False}, {"api/alpha": "true"}, 6443
    )
    assert config.load("", "f") == config.ClusterConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("[]", "the file must be a map"),
        ("kind: Pod", "field kind must be Cluster, not 'Pod'"),
        ("kind: Cluster", "field apiVersion must be kind.x-k8s.io/v1alpha4, not None"),
        (HEADER + "name: 5", "field name must be a string"),
        (HEADER + "kubeadmConfigPatches: []", "field kubeadmConfigPatches is not supported"),
        (HEADER + "nodes: [{role: worker}]", "field nodes: a cluster needs a control-plane node"),
        (HEADER + "nodes: [{role: master}]", r"field nodes\[0\].role must be control-plane or worker, not 'master'"),
        (HEADER + "nodes: [{}, {}]", "field nodes: this local cluster has one control-plane node, not 2"),
        (HEADER + "nodes: [{}, {role: worker}, {role: worker}]", "has one worker at most, not 2"),
        (HEADER + "nodes: [{labels: {a: b}}]", r"field nodes\[0\].labels is not supported"),
        (HEADER + "nodes: [{}, {role: worker, labels: {a: 1}}]", r"field nodes\[1\].labels.a must be"),
        (HEADER + "nodes: [{}, {role: worker, labels: {'a,b': c}}]", r"field nodes\[1\].labels.a,b must be"),
        (HEADER + "nodes: [{extraMounts: []}]", r"field nodes\[0\].extraMounts is not supported"),
        (HEADER + "networking: {ipFamily: ipv6}", "field networking.ipFamily is not supported"),
        (HEADER + "networking: {apiServerAddress: 0.0.0.0}", "field networking.apiServerAddress must be 127.0.0.1"),
        (HEADER + "networking: {apiServerPort: 70000}", "field networking.apiServerPort must be a port"),
        (HEADER + "networking: {apiServerPort: true}", "field networking.apiServerPort must be a port"),
        (HEADER + "featureGates: {A: 'yes'}", "field featureGates.A must be true or false"),
        (HEADER + "runtimeConfig: {'a,b': true}", "field runtimeConfig.a,b must be"),
    ],
)
def test_a_config_that_cannot_be_honoured_names_its_field(text: str, message: str) -> None:
    with pytest.raises(KindError, match=f"^kind.yaml.*{message}"):
        config.load(text, "kind.yaml")


def test_an_image_stands_for_a_version() -> None:
    for image in ("kindest/node:v1.37.2", "host:5000/node:v1.37.0@sha256:abc"):
        config.check_image(image, "v1.37.2")
    for image in ("kindest/node:v1.3.2", "kindest/node", "host:5000/node", "kindest/node:v1.370.0"):
        with pytest.raises(KindError, match=r"Kubernetes v1\.37\.2 only"):
            config.check_image(image, "v1.37.2")


OTHERS = {
    "clusters": [{"name": "prod", "cluster": {"server": "s"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me", "namespace": "n"}}],
    "current-context": "prod",
    "extensions": [{"name": "kept"}],
}


def _edited(path: Path, pki: Path, explicit: str | None = None) -> dict[str, Any]:
    kubeconfig.add(kubeconfig.single("kind-x", "https://127.0.0.1:1", pki, "admin"), explicit)
    return dict(yaml.safe_load(path.read_text()))


def test_adding_keeps_others_and_removing_takes_only_its_own(pki: Path, home: Path) -> None:
    path = home / ".kube" / "config"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(OTHERS))
    added = _edited(path, pki)
    assert added["current-context"] == "kind-x"
    assert [entry["name"] for entry in added["contexts"]] == ["prod", "kind-x"]
    assert _edited(path, pki) == added
    kubeconfig.remove("kind-x", None)
    left = yaml.safe_load(path.read_text())
    assert left == {**OTHERS, "current-context": "", "apiVersion": "v1", "kind": "Config", "preferences": {}}


@pytest.mark.parametrize("content", [None, "", "clusters: null\nusers:\ncontexts:\n"])
def test_a_new_or_empty_file_becomes_a_private_kubeconfig(content: str | None, pki: Path, home: Path) -> None:
    path = home / "new" / "kubeconfig"
    if content is not None:
        path.parent.mkdir()
        path.write_text(content)
        path.chmod(0o600)
    assert _edited(path, pki, str(path))["clusters"][0]["name"] == "kind-x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_kubeconfig_variable_means_the_first_file_that_exists_and_a_link_stays_one(
    pki: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, link = home / "target", home / "link"
    target.touch(mode=0o640)
    link.symlink_to(target)
    monkeypatch.setenv("KUBECONFIG", f"{home / 'absent'}::{link}:{home / 'last'}")
    assert _edited(target, pki)["current-context"] == "kind-x"
    assert (link.is_symlink(), stat.S_IMODE(target.stat().st_mode)) == (True, 0o640)


def test_a_file_that_another_program_holds_is_not_touched(
    pki: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeconfig, "_LOCK_PATIENCE", 0)
    (home / "k.lock").touch()
    with pytest.raises(KindError, match=r"k is locked by another program; if none runs, remove .*k\.lock"):
        _edited(home / "k", pki, str(home / "k"))
    assert not (home / "k").exists()


def _certificate(pki: Path, stem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((pki / f"{stem}.crt").read_bytes())


@pytest.mark.parametrize(
    ("stem", "user", "group", "authority"),
    [
        ("admin", "kubernetes-admin", ["system:masters"], "ca"),
        ("controller-manager", "system:kube-controller-manager", [], "ca"),
        ("scheduler", "system:kube-scheduler", [], "ca"),
        ("apiserver-etcd-client", "kube-apiserver-etcd-client", [], "etcd-ca"),
    ],
)
def test_a_client_certificate_says_who_and_serves_for_nothing_else(
    pki: Path, stem: str, user: str, group: list[str], authority: str
) -> None:
    certificate = _certificate(pki, stem)
    certificate.verify_directly_issued_by(_certificate(pki, authority))
    names = {
        oid: certificate.subject.get_attributes_for_oid(oid) for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    }
    assert [name.value for name in names[NameOID.COMMON_NAME]] == [user]
    assert [name.value for name in names[NameOID.ORGANIZATION_NAME]] == group
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_api_server_is_named_as_its_clients_call_it(pki: Path) -> None:
    names = _certificate(pki, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "10.96.0.1"}
    assert {"localhost", "kubernetes.default.svc"} <= set(names.get_values_for_type(x509.DNSName))


def test_no_user_of_the_cluster_is_a_client_of_etcd(pki: Path) -> None:
    with pytest.raises(ValueError, match="issuer"):
        _certificate(pki, "admin").verify_directly_issued_by(_certificate(pki, "etcd-ca"))


def test_only_the_owner_reads_certificates_and_keys(pki: Path) -> None:
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in pki.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 X:nocoverage linux/arm64", (1, 27, 0)),
        ("go version devel +abc", ()),
        ("1.26.0", (1, 26, 0)),
    ],
)
def test_a_go_version_is_read(text: str, version: tuple[int, ...]) -> None:
    assert golang.parse_version(text) == version


def test_a_go_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    broken = tmp_path / "go"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    assert golang.version_of(broken) == golang.version_of(tmp_path / "absent") == ()


def test_the_flags_tell_the_version_of_go_mod() -> None:
    version = build.kubernetes_version()
    assert f"k8s.io/kubernetes {version}" in (build.MODULE / "go.mod").read_text()
    assert f"version.gitVersion={version} " in build.build_flags(version)[2]


def test_programs_that_are_there_cost_no_call_of_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_build", _fill)
    monkeypatch.setattr(golang, "find_go", _forbidden)
    first = build.programs(Console(), build.CONTROL_PLANE)
    monkeypatch.setattr(build, "_build", _forbidden)
    assert build.programs(Console(), build.CONTROL_PLANE) == first
    (first / "kubectl").unlink()
    with pytest.raises(AssertionError):
        build.programs(Console(), build.CONTROL_PLANE)


def test_a_group_of_programs_is_built_when_it_is_needed_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_build", _fill)
    first = build.programs(Console(), build.CONTROL_PLANE)
    assert {path.name for path in first.iterdir()} == set(build.CONTROL_PLANE)
    assert build.programs(Console(), build.CONTROL_PLANE, build.WORKER) == first
    assert {path.name for path in first.iterdir()} == {*build.CONTROL_PLANE, *build.WORKER}


def _fill(folder: Path, programs: build.Group, *_: object) -> None:
    folder.mkdir(exist_ok=True)
    for program in programs:
        (folder / program).touch(mode=0o755, exist_ok=False)


def _forbidden(*_: object) -> None:
    raise AssertionError


def _layout(folder: Path, **more: Any) -> Layout:
    return Layout(folder, Path("/bin"), Ports(apiserver=1, etcd=2, etcd_peer=3), **more)


def test_every_program_is_told_to_stay_on_loopback(tmp_path: Path) -> None:
    lines = command_lines(_layout(tmp_path))
    assert tuple(lines) == PROGRAMS
    for program in PROGRAMS[1:]:
        assert "--bind-address=127.0.0.1" in lines[program]
    assert all("https://127.0.0.1:" in word for word in lines["etcd"] if "urls" in word)


def test_gates_and_runtime_config_reach_the_programs(tmp_path: Path) -> None:
    lines = command_lines(
        _layout(tmp_path, feature_gates={"A": True, "B": False}, runtime_config={"api/alpha": "true"})
    )
    assert all("--feature-gates=A=true,B=false" in lines[program] for program in PROGRAMS[1:])
    assert "--runtime-config=api/alpha=true" in lines["kube-apiserver"]


def test_ports_are_free_distinct_and_not_another_clusters() -> None:
    first = ports.free_ports(50, ())
    assert len(set(first)) == 50
    assert not set(ports.free_ports(50, first)) & set(first)
    assert all(map(ports.is_free, first))


def test_a_cluster_that_does_not_exist_has_no_processes_and_gets_no_folder() -> None:
    absent = Cluster("absent").process("etcd")
    absent.stop()
    with pytest.raises(KindError, match="no cluster in"):
        absent.start()
    assert not Cluster("absent").exists


def test_state_is_private_and_what_is_no_cluster_is_ignored(home: Path) -> None:
    cluster = Cluster("a.b-c")
    paths.make_private(cluster.folder)
    cluster.remember(Facts(Ports(1, 2, 3)))
    (cluster.folder.parent / "stray file").touch()
    assert [found.name for found in all_clusters()] == ["a.b-c"]
    assert cluster.facts() == Facts(Ports(1, 2, 3))
    below = [path for path in (home / ".local").rglob("*") if path.name != "stray file"]
    assert not [path for path in below if path.stat().st_mode & 0o077]


def test_a_lock_outlives_the_folder_that_its_holder_deletes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    script = (
        "import sys, pathlib; from localkube.locks import locked\nfolder = pathlib.Path(sys.argv[1])\n"
        "with locked(folder, lambda: folder.mkdir(exist_ok=True), lambda: print('waits', flush=True)):\n"
        "    print('holds', folder.is_dir(), flush=True)\n"
    )
    with locked(folder, folder.mkdir):
        other = subprocess.Popen(
            [sys.executable, "-c", script, folder],
            env={**os.environ, "PYTHONPATH": str(TOOLS)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout
        assert other.stdout.readline() == "waits\n"
        folder.rmdir()
    assert other.communicate(timeout=10)[0] == "holds True\n"
