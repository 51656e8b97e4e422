"""The command line: flags, names, messages; and the script in front of it."""

import subprocess
from pathlib import Path

import pytest

from localkube import build, cli
from localkube.cluster import Cluster
from localkube.duration import parse_duration
from localkube.errors import KindError

TOOLS = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("home")


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
