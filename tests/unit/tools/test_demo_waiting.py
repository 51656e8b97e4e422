"""The demo's wait for pools, with the reason while they are not as expected."""

from typing import Any, cast

import pytest

from demo import waiting
from demo.change_watcher import Observer
from demo.waiting import wait_for_pools
from localfleet.process import TooLate

ERROR = "port 10241 is in use"


class Program:
    """A process that runs, or has ended."""

    name = "agent edge-1"

    def __init__(self, *, running: bool) -> None:
        self.running = running

    def tail(self, _lines: int) -> str:
        return "no kubeconfig"


@pytest.fixture
def seen() -> Observer:
    """An observer without watches, whose state a test sets."""
    return Observer(cast("Any", None))


def see(seen: Observer, *, slices: set[str], redis: set[str]) -> None:
    seen.slices["zh-en"], seen.redis["zh-en"] = dict.fromkeys(slices, "Ready"), redis


def report(seen: Observer, state: str, error: str | None = None) -> None:
    """Report one service of a node."""
    service = {"id": "piper", "state": state, "lastError": error}
    status = {"report": {"time": "2026-01-01T00:00:00Z", "capabilities": [], "services": [service]}}
    body: dict[str, Any] = {"metadata": {"name": "edge-1"}, "status": status}
    seen.take_node(body, 0.0, gone=False)


def wait(seen: Observer, *, seconds: float = 0.0, running: bool = True) -> list[str]:
    """Wait for one node in one pool; return the lines shown."""
    shown: list[str] = []
    programs: Any = [Program(running=running)]
    wait_for_pools(seen, programs, {"zh-en": {"edge-1"}, "llm": set()}, seconds, shown.append)
    return shown


@pytest.mark.parametrize(
    ("slices", "redis", "reason"),
    [
        (set(), {"edge-1"}, "pool zh-en lacks edge-1 in its slices"),
        ({"edge-1"}, set(), "pool zh-en lacks edge-1 in Redis"),
        ({"edge-1", "edge-2"}, {"edge-1"}, "pool zh-en still has edge-2 in its slices"),
    ],
)
def test_the_error_names_the_missing_or_extra_node_in_one_line(
    seen: Observer, slices: set[str], redis: set[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.01)
    see(seen, slices=slices, redis=redis)
    with pytest.raises(TooLate) as caught:
        wait(seen)
    assert str(caught.value) == f"not within 0 s: {reason}"


def test_the_wait_ends_when_slices_and_redis_are_as_expected(seen: Observer) -> None:
    see(seen, slices={"edge-1"}, redis={"edge-1"})
    assert wait(seen) == []


def test_a_failed_service_is_shown_once_with_its_error(seen: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "_SHOW_SECONDS", 0.05)
    report(seen, "Failed", ERROR)
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        if len(shown) == 2:
            see(seen, slices={"edge-1"}, redis={"edge-1"})

    wait_for_pools(seen, [], {"zh-en": {"edge-1"}}, 10, show)
    assert shown == [f"piper on edge-1 failed: {ERROR}", "waiting: pool zh-en lacks edge-1 in its slices"]


def test_a_service_that_has_recovered_does_not_count_as_failed(seen: Observer) -> None:
    report(seen, "Failed", ERROR)
    report(seen, "Running")
    assert seen.failures == {}


def test_an_ended_process_ends_the_wait_at_once(seen: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.01)
    with pytest.raises(RuntimeError, match="agent edge-1 has ended: no kubeconfig"):
        wait(seen, seconds=60, running=False)
