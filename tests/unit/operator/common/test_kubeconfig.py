"""Kubeconfigs are found, merged and selected from as kubectl does (requirement F5)."""

import os
from pathlib import Path

import pytest
import yaml

from hotpool.common import kubeconfig
from hotpool.common.kubeconfig import Kubeconfig, Target, TargetError, load, namespace_of, select


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this process a pod with a service account; return its folder."""
    folder = tmp_path / "account"
    folder.mkdir()
    for name in ("token", "namespace"):
        (folder / name).write_text(f"of-{name}\n", encoding="utf-8")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", folder)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return folder


def write(path: Path, name: str, current: str | None = None) -> str:
    """Write a kubeconfig whose entries have this name; return its path."""
    content = {
        "current-context": current,
        "clusters": [{"name": name, "cluster": {"server": f"https://{path.stem}"}}],
        "users": [{"name": name, "user": {"tokenFile": "token"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": path.stem}}],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def listed(monkeypatch: pytest.MonkeyPatch, *paths: str) -> Kubeconfig:
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(paths))
    return load(Target())


def test_the_first_file_wins_for_the_current_context_and_for_each_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write(tmp_path / "first", "a", "a"), write(tmp_path / "b" / "second", "a", "b")
    third = write(tmp_path / "b" / "third", "c", "c")
    config = listed(monkeypatch, str(tmp_path / "missing"), "", first, second, third)
    chosen = select(config, None)
    assert (chosen.cluster.text("server"), chosen.namespace) == ("https://first", "first")
    assert chosen.user
    assert chosen.user.path("tokenFile") == tmp_path / "token"
    other = select(config, "c")
    assert other.user
    assert (other.namespace, other.user.path("tokenFile")) == ("third", tmp_path / "b" / "token")


def test_an_empty_variable_means_the_home_folders_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    write(tmp_path / "home" / ".kube" / "config", "a", "a")
    monkeypatch.setenv("KUBECONFIG", "")
    assert namespace_of(Target()) == "config"


def test_an_explicit_file_is_one_path_and_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "first", "a", "a")
    monkeypatch.setenv("KUBECONFIG", path)
    with pytest.raises(TargetError, match="does not exist; see --kubeconfig"):
        load(Target(f"{path}:{path}"))


def test_the_namespace_without_a_kubeconfig_is_default() -> None:
    assert namespace_of(Target()) == "default"


def test_a_pod_without_a_kubeconfig_uses_its_service_account(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kubeconfig.service_account_used(Target(), load(Target()))
    assert namespace_of(Target()) == "of-namespace"
    monkeypatch.setenv("POD_NAMESPACE", "by-downward-api")
    assert namespace_of(Target()) == "by-downward-api"
    (pod / "token").unlink()
    with pytest.raises(TargetError, match="automountServiceAccountToken"):
        select(load(Target()), None)


@pytest.mark.usefixtures("pod")
def test_a_kubeconfig_or_a_context_is_used_before_the_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TargetError, match="does not exist"):
        namespace_of(Target(context="a"))
    monkeypatch.setenv("KUBECONFIG", write(tmp_path / "first", "a", "a"))
    assert namespace_of(Target()) == "first"


def test_a_file_is_parsed_once_per_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", write(tmp_path / "once", "a", "a"))
    before = kubeconfig._parse.cache_info().misses  # noqa: SLF001 - the parser has no other trace
    assert namespace_of(Target()) == "once"
    assert select(load(Target()), None).namespace == "once"
    assert kubeconfig._parse.cache_info().misses == before + 1  # noqa: SLF001


def test_null_is_absent_and_a_number_is_refused_where_text_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    text = (
        "current-context: a\nusers: null\nclusters: [{name: a, cluster: {server: x, tls-server-name: ~}}]\n"
        "contexts: [{name: a, context: {cluster: a, namespace: '007'}}]\n"
    )
    path.write_text(text, encoding="utf-8")
    chosen = select(listed(monkeypatch, str(path)), None)
    assert (chosen.namespace, chosen.cluster.text("tls-server-name"), chosen.user) == ("007", "", None)
    path.write_text(text.replace("'", ""), encoding="utf-8")
    with pytest.raises(TargetError, match="namespace of a is not text; quote it"):
        namespace_of(Target())
