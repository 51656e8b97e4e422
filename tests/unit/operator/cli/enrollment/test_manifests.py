"""Steps of a credential rotation, and the kubeconfig file."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool.api.names import NODE_NAME_MAX
from hotpool.cli.enroll import EnrollOptions
from hotpool.cli.enrollment import kubeconfig_file
from hotpool.cli.enrollment.manifests import Credential, ForeignError, credential, kubeconfig, next_step, secret_names
from hotpool.cli.enrollment.rotation import result_lines
from hotpool.cli.options import FleetOptions
from hotpool.common.atomic_file import write_atomically

NAMES = secret_names("edge-1")
A, B = NAMES


def stored_credential(name: str, serial: int, *, used: bool) -> Credential:
    return Credential(name, f"{name}-{serial}", serial, used, "token", "")


def test_the_first_run_creates_a_credential() -> None:
    step = next_step(NAMES, [])
    assert (step.newest, step.new_name, step.serial, step.former, step.retired) == (None, A, 1, None, None)


@pytest.mark.parametrize("former", [[], [stored_credential(B, 1, used=True)]])
def test_an_unused_credential_is_handed_out_again(former: list[Credential]) -> None:
    newest = stored_credential(A, 2, used=False)
    step = next_step(NAMES, [newest, *former])
    assert (step.newest, step.new_name, step.retired) == (newest, "", None)
    assert step.former == (former[0] if former else None)


def test_a_used_credential_is_followed_by_a_second_with_the_other_name() -> None:
    only = stored_credential(B, 7, used=True)
    step = next_step(NAMES, [only])
    assert (step.newest, step.new_name, step.serial, step.former, step.retired) == (None, A, 8, only, None)


def test_the_former_is_deleted_after_the_newest_was_used_and_none_is_created() -> None:
    former, newest = stored_credential(B, 7, used=True), stored_credential(A, 8, used=True)
    step = next_step(NAMES, [newest, former])
    assert (step.newest, step.new_name, step.former, step.retired) == (newest, "", None, former)


@pytest.mark.parametrize(
    ("stored", "first", "end"),
    [
        ([], "The credential is in k.", "It does not expire; to end it: hotpool enroll edge-1 -n speech --revoke"),
        ([(A, 1, False)], "The credential is in k.", "It is the same as before: it was never used, so nothing is rota"),
        ([(A, 1, True)], "Rotation begun: a second credential is in k; it does", "The former one ends when it is dele"),
        ([(A, 1, True), (B, 2, False)], "Rotation continues, nothing new is", "The former one ends when it is delet"),
        ([(A, 1, True), (B, 2, True)], "Rotated: the former credential is deleted, and is", "k has the one in use, wh"),
    ],
)
def test_a_run_says_whether_it_rotates_and_when_each_credential_ends(
    stored: list[tuple[str, int, bool]], first: str, end: str
) -> None:
    step = next_step(NAMES, [stored_credential(name, serial, used=used) for name, serial, used in stored])
    options = EnrollOptions("edge-1", FleetOptions("speech", None, None), "k", None, None)
    lines = result_lines(step, options)
    assert lines[0].startswith(first)
    assert lines[1].startswith(end)


@given(st.lists(st.sampled_from(["run", "use"]), max_size=30))
def test_there_are_never_three_and_the_one_in_use_is_valid(actions: list[str]) -> None:
    """`use`: the agent sends a request with the credential of the last run."""
    stored: dict[str, Credential] = {}
    latest: Credential | None = None
    in_use: Credential | None = None
    for action in actions:
        if action == "run":
            step = next_step(NAMES, stored.values())
            if step.retired:
                del stored[step.retired.name]
            if step.new_name:
                assert step.new_name not in stored
                stored[step.new_name] = stored_credential(step.new_name, step.serial, used=False)
            latest = stored[step.newest.name if step.newest else step.new_name]
        elif latest:
            in_use = stored[latest.name] = stored_credential(latest.name, latest.serial, used=True)
        assert len(stored) <= 2
        assert in_use is None or in_use.name in stored


def test_a_foreign_secret_is_not_a_credential() -> None:
    foreign = {"metadata": {"uid": "u"}, "type": "Opaque"}
    with pytest.raises(ForeignError, match=r"hotpool-agent-edge-1\.a"):
        credential(A, "edge-1", foreign)


def test_no_two_nodes_share_a_name() -> None:
    """Not even those whose names look like parts of other names."""
    nodes = ["a", "a.a", "a.b", "a-1", "a.node-name-taken", "agent", "n" * NODE_NAME_MAX]
    names = [name for node in nodes for name in secret_names(node)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 253


def test_the_file_is_private_and_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.touch(mode=0o644)
    path.write_text(kubeconfig("edge-1", "speech", "old", {"server": "https://a"}))
    assert kubeconfig_file.write_error(path, "edge-1") is None
    write_atomically(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "x", "users: []", kubeconfig("edge-2", "speech", "t", {}), "users: 3", ": :"])
def test_a_foreign_file_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    assert "choose another" in (kubeconfig_file.write_error(tmp_path / "k", "edge-1") or "")


def test_an_unwritable_file_is_an_error(tmp_path: Path) -> None:
    assert kubeconfig_file.write_error(tmp_path, "edge-1")
    assert kubeconfig_file.write_error(tmp_path / "none" / "k", "edge-1")


@pytest.mark.parametrize(
    ("server", "local"),
    [
        ("https://127.0.0.1:6443", True),
        ("https://[::1]:6443", True),
        ("https://localhost", True),
        ("https://10.0.0.1:6443", False),
        ("https://api.example.com", False),
    ],
)
def test_a_loopback_address_is_recognized(server: str, *, local: bool) -> None:
    assert kubeconfig_file.is_loopback(server) is local
