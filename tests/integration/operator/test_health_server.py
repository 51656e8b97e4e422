"""/healthz, /readyz and /metrics over real HTTP."""

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hotpool.common.health_server import check_lines, serving
from hotpool.observability.metrics import REGISTRY
from localfleet.ports import free_port

SECONDS = 10


class Served:
    """A health server in an event loop of its own, which a test can block."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.checks: dict[str, str] = {}
        self.loop = asyncio.new_event_loop()
        self.port = free_port()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._serving = serving(
            f"{host}:{self.port}",
            REGISTRY,
            healthz=lambda: (True, "ok\n"),
            readyz=lambda: check_lines(self.checks),
        )
        asyncio.run_coroutine_threadsafe(self._serving.__aenter__(), self.loop).result(SECONDS)

    def get(self, path: str, timeout: float = SECONDS) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=timeout) as response:
                return int(response.status), response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._serving.__aexit__(None, None, None), self.loop).result(SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS)
        self.loop.close()


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    yield server
    server.close()


def test_healthz_does_not_answer_while_the_event_loop_hangs(served: Served) -> None:
    hung, again = threading.Event(), threading.Event()

    def hang() -> None:
        hung.set()
        again.wait(SECONDS)

    assert served.get("healthz") == (200, "ok\n")
    served.loop.call_soon_threadsafe(hang)
    assert hung.wait(SECONDS)
    with pytest.raises(TimeoutError):
        served.get("healthz", timeout=1)
    again.set()
    assert served.get("healthz") == (200, "ok\n")


def test_readyz_lists_the_state_of_each_part(served: Served) -> None:
    served.checks = {"listed": "", "following": ""}
    assert served.get("readyz") == (200, "[+] listed\n[+] following\n")
    served.checks = {"listed": "", "leading": "no leader"}
    assert served.get("readyz") == (503, "[+] listed\n[-] leading: no leader\n")


def test_metrics_include_the_memory_of_the_process(served: Served) -> None:
    status, text = served.get("metrics")
    assert status == 200
    values = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert values["process_resident_memory_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


def test_a_star_listens_on_every_address() -> None:
    server = Served("*")
    try:
        assert server.get("healthz") == (200, "ok\n")
    finally:
        server.close()
