"""The state file (requirement A8): real files."""

import asyncio
import json
from pathlib import Path

import pytest

from hotpool_agent import state_store
from hotpool_agent.state_store import StoredServiceState, StoreError, open_store


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"\0" * 4096, b"[]", b"7", b"{}", b'{"instance": 3}', b'{"schemaVersion": "x"}']
)
def test_a_file_that_cannot_be_read_is_put_aside_and_a_new_one_begun(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    found = open_store(tmp_path)
    assert found.state.services == {}
    assert len(found.state.instance) == 32
    assert found.unreadable_copy is not None
    assert found.unreadable_copy.read_bytes() == content
    assert not path.exists()


def test_a_file_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"schemaVersion": 99, "instance": "x"}))
    with pytest.raises(StoreError, match="newer"):
        open_store(tmp_path)
    assert path.exists()


async def test_what_was_flushed_is_read_again(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    writer = asyncio.create_task(first.write_forever())
    first.state.services["s"] = StoredServiceState(desired="Running", desired_by="local", acted=("Stopped", ""))
    first.save()
    assert await first.flush_within(5)
    assert open_store(tmp_path).state == first.state
    writer.cancel()


async def test_nothing_is_safe_until_the_disk_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_store, "_RETRY_SECONDS", 0.01)
    kept = open_store(tmp_path)
    writer = asyncio.create_task(kept.write_forever())
    with monkeypatch.context() as disk:
        disk.setattr(state_store, "write_atomically", full)
        kept.save()
        assert not await kept.flush_within(0.1)
    assert await kept.flush_within(5)
    writer.cancel()
