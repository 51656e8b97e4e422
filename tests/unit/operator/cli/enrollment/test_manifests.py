"""The steps of a credential's rotation, and the file in which it is handed out: pure, and a folder."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool.api.names import NODE_NAME_MAX
from hotpool.cli.enrollment import kubeconfig_file
from hotpool.cli.enrollment.manifests import Credential, ForeignError, credential, kubeconfig, secrets_of, step
from hotpool.common.atomic_file import write_atomically

NAMES = secrets_of("edge-1")
A, B = NAMES


def held(name: str, serial: int, *, used: bool) -> Credential:
    return Credential(name, f"{name}-{serial}", serial, used, "token", "")


def test_the_first_run_makes_one() -> None:
    due = step(NAMES, [])
    assert (due.newest, due.make, due.serial, due.former, due.over) == (None, A, 1, None, None)


@pytest.mark.parametrize("former", [[], [held(B, 1, used=True)]])
def test_one_that_was_never_used_is_handed_out_again(former: list[Credential]) -> None:
    newest = held(A, 2, used=False)
    due = step(NAMES, [newest, *former])
    assert (due.newest, due.make, due.over) == (newest, "", None)
    assert due.former == (former[0] if former else None)


def test_one_that_is_in_use_is_followed_by_a_second_under_the_other_name() -> None:
    only = held(B, 7, used=True)
    due = step(NAMES, [only])
    assert (due.newest, due.make, due.serial, due.former, due.over) == (None, A, 8, only, None)


def test_the_former_ends_when_the_newest_was_used_and_nothing_new_is_made() -> None:
    former, newest = held(B, 7, used=True), held(A, 8, used=True)
    due = step(NAMES, [newest, former])
    assert (due.newest, due.make, due.former, due.over) == (newest, "", None, former)


@given(st.lists(st.sampled_from(["run", "use"]), max_size=30))
def test_whatever_happens_there_are_never_three_and_the_one_in_use_works(course: list[str]) -> None:
    """`use`: the agent logs in with what the last run handed out."""
    stored: dict[str, Credential] = {}
    handed: Credential | None = None
    in_use: Credential | None = None
    for happening in course:
        if happening == "run":
            due = step(NAMES, stored.values())
            if due.over:
                del stored[due.over.name]
            if due.make:
                assert due.make not in stored
                stored[due.make] = held(due.make, due.serial, used=False)
            handed = stored[due.newest.name if due.newest else due.make]
        elif handed:
            in_use = stored[handed.name] = held(handed.name, handed.serial, used=True)
        assert len(stored) <= 2
        assert in_use is None or in_use.name in stored


def test_a_secret_of_somebody_else_is_not_taken_for_a_credential() -> None:
    read = {"uid": "u", "type": "Opaque", "labels": {}, "annotations": {}, "data": {}}
    with pytest.raises(ForeignError, match=r"hotpool-agent-edge-1\.a"):
        credential(A, "edge-1", read)


def test_no_two_nodes_share_a_name() -> None:
    """Also those whose names look like parts of names."""
    nodes = ["a", "a.a", "a.b", "a-1", "a.node-name-taken", "agent", "n" * NODE_NAME_MAX]
    names = [name for node in nodes for name in secrets_of(node)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 253


def test_the_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.touch(mode=0o644)
    path.write_text(kubeconfig("edge-1", "speech", "old", {"server": "https://a"}))
    assert kubeconfig_file.write_error(path, "edge-1") is None
    write_atomically(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "x", "users: []", kubeconfig("edge-2", "speech", "t", {}), "users: 3", ": :"])
def test_nobody_elses_file_is_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    assert "choose another" in (kubeconfig_file.write_error(tmp_path / "k", "edge-1") or "")


def test_a_file_that_cannot_be_written_is_said_before(tmp_path: Path) -> None:
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
def test_an_address_of_this_machine_only_is_known(server: str, *, local: bool) -> None:
    assert kubeconfig_file.is_loopback(server) is local
