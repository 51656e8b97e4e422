"""The released images and those for tests: their archives, without a kubelet. Needs root."""

import hashlib
import json
import os
import re
import stat
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from localfleet.kind import REPOSITORY
from localfleet.ports import free_port
from localimages import archive, base, images, pip_settings
from localkube.console import Console

ROOT = REPOSITORY
USER = 65532
LIMITS = {"dependencies": 250_000_000, "own": 10_000_000}
"""Bytes, uncompressed: what a node fetches once, and with each version."""
ENTERED = (
    'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && for shell in dash bash; do '
    'mount --bind /dev/null "$0/usr/bin/$shell"; done && exec chroot --userspec="$1" "$0" "${@:2}"'
)
LISTED = """
import json, importlib.metadata as m
print(json.dumps({d.name: d.version for d in m.distributions()}))
"""
IMPORTED = """
import sys, pathlib, hotpool.cli.program, hotpool.app, hotpool_agent.cli.program
for name, module in sys.modules.items():
    if name.partition(".")[0] in ("hotpool", "hotpool_agent", "kubernetes"):
        print(name, pathlib.Path(module.__cached__).read_bytes()[4])
"""


@pytest.fixture(scope="module")
def path() -> Path:
    """The archive of operator and agent."""
    return images.ensure(images.hotpool(), Console())


@pytest.fixture(scope="module")
def root(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the image, as in a container."""
    return unpacked(path, tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def members(path: Path) -> list[tarfile.TarInfo]:
    """All files of the layers above the base."""
    found: list[tarfile.TarInfo] = []
    for name in archive.manifest(path)["Layers"][1:]:
        with archive.layer(path, name) as tar:
            found += tar.getmembers()
    return found


def unpacked(path: Path, folder: Path) -> Path:
    """Unpack an image into a folder, readable for others than root; return the folder."""
    archive.unpack(path, folder)
    folder.chmod(0o755)
    return folder


def start(root: Path, path: Path, *command: str, **options: Any) -> subprocess.Popen[str]:
    """Start a program with the image's user and environment, a read-only root, and shells that cannot run."""
    config = archive.config(path)["config"]
    words = ["unshare", "--mount", "--propagation", "private", "bash", "-c", ENTERED, root, config["User"], *command]
    environment = dict(pair.split("=", 1) for pair in config["Env"])
    return subprocess.Popen(words, env=environment, text=True, **options)


def run(root: Path, path: Path, *command: str) -> str:
    """Run a program as `start` does; return its standard output."""
    process = start(root, path, *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def locked() -> dict[str, str]:
    """Return distribution → version in requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return {normal(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lines, re.MULTILINE)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_archive_agrees_with_its_manifest(path: Path) -> None:
    manifest = archive.manifest(path)
    assert manifest["RepoTags"] == [images.hotpool().reference]
    with tarfile.open(path) as tar:
        for name, digest in zip(manifest["Layers"], archive.config(path)["rootfs"]["diff_ids"], strict=True):
            layer = tar.extractfile(name)
            assert layer
            assert f"sha256:{hashlib.file_digest(layer, 'sha256').hexdigest()}" == digest  # type: ignore[arg-type]


def test_the_image_has_labels_a_user_other_than_root_and_no_entry_point(path: Path) -> None:
    config = archive.config(path)["config"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert {name: labels[name] for name in ("title", "description", "licenses", "version")} == {
        "title": project["name"],
        "description": project["description"],
        "licenses": project["license"],
        "version": project["version"],
    }
    assert labels["base.name"] == base.tag()
    revision = labels["revision"].removesuffix("-dirty")
    assert subprocess.check_output(["git", "cat-file", "-t", revision], cwd=ROOT, text=True) == "commit\n"  # noqa: S607
    assert (config["User"], config.get("Entrypoint"), config["Cmd"]) == (f"{USER}:{USER}", None, ["hotpool", "--help"])


def test_both_programs_run_without_root_rights_in_a_read_only_root_without_a_shell(root: Path, path: Path) -> None:
    assert "operator" in run(root, path, "hotpool", "--help")
    assert "run" in run(root, path, "hotpool-agent", "run", "--help")
    attempt = "import os; print(os.getuid(), os.getgid(), os.access('/opt/hotpool', os.W_OK), os.path.expanduser('~'))"
    assert run(root, path, "python", "-c", attempt).split() == [str(USER), str(USER), "False", "/var/lib/hotpool-agent"]
    refused = start(root, path, "sh", "-c", "true", stderr=subprocess.PIPE)
    refused.communicate(timeout=60)
    assert refused.returncode == 126


def test_nothing_is_compiled_at_the_start(root: Path, path: Path) -> None:
    modules = run(root, path, "python", "-c", IMPORTED).splitlines()
    assert len(modules) > 100
    assert {line.split()[1] for line in modules} == {"1"}  # by hash, unchecked (PEP 552)


def test_the_sbom_lists_the_installed_distributions_in_the_locked_versions(root: Path, path: Path) -> None:
    sbom = json.loads((root / images.SBOM).read_text(encoding="utf-8"))
    own = sbom["metadata"]["component"]
    listed = {normal(part["name"]): part["version"] for part in sbom["components"]}
    installed = {normal(name): version for name, version in json.loads(run(root, path, "python", "-c", LISTED)).items()}
    assert (sbom["bomFormat"], own["name"]) == ("CycloneDX", "hotpool")
    assert listed | {own["name"]: own["version"]} == installed
    assert {"kopf", "kubernetes", "redis", "psutil"} <= listed.keys() <= locked().keys()
    assert listed == {name: locked()[name] for name in listed}
    assert path.with_name("sbom.cdx.json").read_bytes() == (root / images.SBOM).read_bytes()


def test_the_image_contains_no_installer_and_no_address_of_a_registry(
    path: Path, members: list[tarfile.TarInfo]
) -> None:
    names = [member.name for member in members]
    assert [name for name in names if name.startswith(("opt/build", "source", "root", "run", "tmp"))] == []
    assert [name for name in names if re.search(r"/(pip|uv|setuptools|hatchling|cyclonedx\w*)([-/]|$)", name)] == []
    assert [name for name in names if name.endswith(("pip.conf", "uv.toml", ".pyo", "/.cache"))] == []
    settings = pip_settings.settings()
    secrets = [word for name, value in settings.items() if name not in {"timeout", "retries"} for word in value.split()]
    assert not [word for word in secrets if word in json.dumps(archive.config(path))]
    for name in archive.manifest(path)["Layers"][1:]:
        with archive.layer(path, name) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                text = content.read() if content else b""
                assert not [word for word in secrets if len(word) > 8 and word.encode() in text], member.name


def test_all_files_belong_to_root_and_no_other_user_can_change_them(members: list[tarfile.TarInfo]) -> None:
    others = [member for member in members if (member.uid, member.gid) != (0, 0)]
    assert [(member.name, member.uid, stat.S_IMODE(member.mode)) for member in others] == [
        ("var/lib/hotpool-agent", USER, 0o700)
    ]
    loose = stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID
    assert [member.name for member in members if member.mode & loose and not member.issym()] == []


def test_a_new_version_is_a_small_layer(path: Path) -> None:
    with tarfile.open(path) as tar:
        *_, dependencies, own = [tar.getmember(name).size for name in archive.manifest(path)["Layers"]]
    assert dependencies < LIMITS["dependencies"]
    assert own < LIMITS["own"]


def test_an_existing_archive_needs_no_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.hotpool()
    monkeypatch.setenv("PATH", os.devnull)
    assert images.ensure(image, Console()) == path


def test_the_redis_for_tests_answers(tmp_path: Path) -> None:
    path = images.ensure(images.valkey(), Console())
    unpacked(path, tmp_path)
    port = free_port()
    words = ("valkey-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    server = start(tmp_path, path, *words, stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port, retry=Retry(ConstantBackoff(0.05), 400)) as client:
            assert client.ping()
    finally:
        server.terminate()
        assert server.wait(10) == 0
