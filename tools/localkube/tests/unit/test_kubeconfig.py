"""The kubeconfig that gains and loses a cluster."""

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube import kubeconfig
from localkube.errors import KindError

pytestmark = pytest.mark.usefixtures("home")


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
