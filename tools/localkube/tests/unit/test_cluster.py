"""Command lines, ports and state of a cluster that does not run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localkube import paths, ports
from localkube.cluster import Cluster, Facts, all_clusters
from localkube.components import PROGRAMS, Layout, Ports, command_lines
from localkube.errors import KindError
from localkube.locks import locked

TOOLS = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("home")


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


@pytest.mark.parametrize(("ephemeral", "end"), [("32768\t60999", 32_768), ("25000\t60999", 60_000), (None, 60_000)])
def test_ports_begin_above_those_of_tests_and_end_below_the_ephemeral_ones_where_there_is_room(
    ephemeral: str | None, end: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if ephemeral:
        (tmp_path / "range").write_text(ephemeral)
    monkeypatch.setattr(ports, "_EPHEMERAL", tmp_path / "range")
    monkeypatch.setattr(ports, "is_free", lambda _: True)
    chosen = ports.free_ports(end - 24_000, ())
    assert (min(chosen), max(chosen)) == (24_000, end - 1)


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
