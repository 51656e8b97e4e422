"""The record of a green run: every change of the tool makes it old, and only a complete run renews it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from localkube import requirements
from localkube.errors import KindError
from localkube.tests import record, run

TOOL = Path("tools/localkube")


def _git(repository: Path, *words: str) -> None:
    subprocess.run(["/usr/bin/env", "git", *words], cwd=repository, check=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean checkout with a record, in which `run.main` finds a machine that allows every test, and all green."""
    for name, text in {"tools/kind": "k", "tools/localkube/a.py": "a", "README.md": "r", ".gitignore": "*.pyc"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    _git(tmp_path, "init", "--quiet")
    record.write(tmp_path, record.digest(tmp_path))
    _git(tmp_path, "add", ".")
    monkeypatch.setattr(record, "REPOSITORY", tmp_path)
    monkeypatch.setattr(run, "_allows_a_worker", lambda: True)
    monkeypatch.setattr(requirements, "check", lambda: None)
    monkeypatch.setattr(run, "_run", lambda *_: 0)
    assert record.is_current(tmp_path)
    return tmp_path


def _write(name: str) -> Callable[[Path], object]:
    return lambda repository: (repository / name).write_text("other")


CHANGES: dict[str, Callable[[Path], object]] = {
    "changed": _write("tools/localkube/a.py"),
    "changed script": _write("tools/kind"),
    "new": _write("tools/localkube/b.py"),
    "removed": lambda repository: (repository / TOOL / "a.py").unlink(),
    "renamed": lambda repository: _git(repository, "mv", str(TOOL / "a.py"), str(TOOL / "b.py")),
    "no record": lambda repository: (repository / record.RECORD).unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_tool_is_noticed_before_and_after_it_is_staged_until_a_run_is_recorded(
    repository: Path, change: Callable[[Path], object]
) -> None:
    change(repository)
    assert not record.is_current(repository)
    _git(repository, "add", "--all")
    assert not record.is_current(repository)
    assert run.main([]) == 0
    assert record.is_current(repository)


@pytest.mark.parametrize("name", ["README.md", "tools/localkube/a.pyc"])
def test_what_is_no_part_of_the_tool_does_not_matter(repository: Path, name: str) -> None:
    _write(name)(repository)
    assert record.is_current(repository)


def test_a_file_that_was_new_during_the_run_may_be_staged_after_it(repository: Path) -> None:
    _write("tools/localkube/b.py")(repository)
    run.main([])
    _git(repository, "add", "--all")
    assert record.is_current(repository)


def test_a_selection_is_not_recorded(repository: Path) -> None:
    CHANGES["changed"](repository)
    assert run.main(["-k", "something"]) == 0
    assert not record.is_current(repository)


def test_a_red_run_is_not_recorded(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CHANGES["changed"](repository)
    monkeypatch.setattr(run, "_run", lambda *_: 1)
    assert run.main([]) == 1
    assert not record.is_current(repository)


def test_a_run_during_which_a_file_changes_is_not_recorded(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CHANGES["changed"](repository)

    def edit(*_: object) -> int:
        (repository / TOOL / "a.py").write_text("edited")
        return 0

    monkeypatch.setattr(run, "_run", edit)
    assert run.main([]) == 0
    assert not record.is_current(repository)
    CHANGES["changed"](repository)
    assert not record.is_current(repository)


def test_a_machine_that_allows_no_worker_runs_the_rest_says_so_and_records_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, ...]] = []
    CHANGES["changed"](repository)
    monkeypatch.setattr(run, "_allows_a_worker", lambda: False)

    def note(tiers: tuple[str, ...], _: object) -> int:
        ran.append(tiers)
        return 0

    monkeypatch.setattr(run, "_run", note)
    assert run.main([]) == 0
    assert ran == [("unit", "cluster")]
    assert capsys.readouterr().err.startswith("NOT RUN: ")
    assert not record.is_current(repository)


def test_a_missing_package_fails_before_any_test_runs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise KindError("a worker node needs runc")

    monkeypatch.setattr(requirements, "check", missing)
    monkeypatch.setattr(run, "_run", lambda *_: pytest.fail("ran"))
    with pytest.raises(KindError):
        run.main([])
    assert record.is_current(repository)
