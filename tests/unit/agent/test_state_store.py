"""The state file (requirement A8): real files."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.support.hangs import hanging_file

from hotpool_agent import state_store
from hotpool_agent.state_store import StoredServiceState, StoreError, open_store


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"\0" * 4096, b"[]", b"7", b"{}", b'{"instance": 3}', b'{"schemaVersion": "x"}']
)
def test_an_unreadable_file_is_moved_and_a_new_state_begun(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    store = open_store(tmp_path)
    assert store.state.services == {}
    assert len(store.state.instance) == 32
    assert store.unreadable_copy is not None
    assert store.unreadable_copy.read_bytes() == content
    assert not path.exists()


async def test_a_write_that_hangs_is_a_problem_until_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_store, "_SLOW_SECONDS", 0.05)
    store, fifo = open_store(tmp_path), tmp_path / "fifo"
    writing = asyncio.create_task(store.write_forever())
    with hanging_file(fifo), monkeypatch.context() as patch:
        patch.setattr(state_store, "write_atomically", lambda *_: fifo.read_bytes())
        store.save()
        assert not await store.flush_within(1)
        assert "does not respond" in (store.problem or "")
    store.save()
    assert await store.flush_within(10)
    assert store.problem is None
    writing.cancel()


def test_a_file_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"schemaVersion": 99, "instance": "x"}))
    with pytest.raises(StoreError, match="newer"):
        open_store(tmp_path)
    assert path.exists()


def test_temporary_files_of_an_interrupted_write_are_deleted(tmp_path: Path) -> None:
    (tmp_path / ".state.json.x1y2z3").write_text("{")
    open_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_flushed_state_is_read_again(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    writer = asyncio.create_task(first.write_forever())
    first.state.services["s"] = StoredServiceState(desired="Running", desired_by="local", acted=("Stopped", ""))
    first.save()
    assert await first.flush_within(5)
    assert open_store(tmp_path).state == first.state
    writer.cancel()


async def test_a_flush_fails_until_the_disk_accepts_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_store, "_RETRY_SECONDS", 0.01)
    store = open_store(tmp_path)
    writer = asyncio.create_task(store.write_forever())
    with monkeypatch.context() as disk:
        disk.setattr(state_store, "write_atomically", full)
        store.save()
        assert not await store.flush_within(0.1)
    assert await store.flush_within(5)
    writer.cancel()
