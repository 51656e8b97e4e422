"""The Go toolchain, and the programs that are built once."""

from pathlib import Path

import pytest

from localkube import build, golang
from localkube.console import Console

pytestmark = pytest.mark.usefixtures("home")


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
