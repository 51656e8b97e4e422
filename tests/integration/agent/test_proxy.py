"""Connections through a proxy (requirement B9): host names that only the proxy resolves, over TLS and plain HTTP."""

from base64 import b64encode
from pathlib import Path

import pytest
from tests.support.agent_run import agent_running, eventually
from tests.support.certificates import Authority
from tests.support.fake_api import FakeApi, fake_api
from tests.support.proxy import proxy_to

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def port_of(api: FakeApi) -> int:
    return int(api.url.rpartition(":")[2])


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", None])
async def test_a_tls_server_is_reached_through_a_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    authority = Authority(tmp_path / "pki")
    async with fake_api(tls=authority.context(authority.issue("server"))) as api, proxy_to(port_of(api)) as proxy:
        # The name does not resolve here. The certificate has another name, set as tls-server-name.
        cluster = {
            "server": "https://api.test:6443",
            "tls-server-name": "127.0.0.1",
            "certificate-authority": str(authority.path),
        }
        address = proxy.url.replace("//", "//user:pass@")
        if name:
            monkeypatch.setenv(name, address)
        else:
            cluster["proxy-url"] = address
            monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        path = api.kubeconfig(tmp_path, {"token": "t"}, cluster)
        async with agent_running(tmp_path, path, NMT) as it:
            await api.until(lambda: api.beats and api.watches)
            assert {line.split(" HTTP")[0] for line in proxy.asked} == {"CONNECT api.test:6443"}
            assert proxy.credentials == {f"Basic {b64encode(b'user:pass').decode()}"}
            assert api.connected() == {"t"}
            await it.shut_down()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
async def test_a_plain_server_is_reached_through_plain_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with fake_api() as api, proxy_to(port_of(api)) as proxy:
        monkeypatch.setenv(name, proxy.url)
        path = api.kubeconfig(tmp_path, {"token": "t"}, {"server": "http://api.test"})
        async with agent_running(tmp_path, path, NMT) as it:
            await api.until(lambda: api.beats and api.watches)
            assert all(line.split()[1].startswith("http://api.test/") for line in proxy.asked)
            await it.shut_down()


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
async def test_a_network_in_no_proxy_is_reached_directly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with fake_api() as api, proxy_to(port_of(api)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv(name, "0.0.0.0/8")
        # On Linux this address is the local machine, but not exempt from proxies as loopback addresses are.
        path = api.kubeconfig(tmp_path, {"token": "t"}, {"server": f"http://0.0.0.0:{port_of(api)}"})
        async with agent_running(tmp_path, path, NMT) as it:
            await api.until(lambda: api.beats)
            assert proxy.asked == []
            await it.shut_down()


@pytest.mark.parametrize(
    ("refuse", "hint"),
    [("407 Proxy Authentication Required", "user name and password"), ("403 Forbidden", "the proxy returns 403")],
)
async def test_a_proxy_that_refuses_is_reported_and_tried_again(tmp_path: Path, refuse: str, hint: str) -> None:
    authority = Authority(tmp_path / "pki")
    async with fake_api(tls=authority.context(authority.issue("server"))) as api, proxy_to(port_of(api)) as proxy:
        proxy.refuse = refuse
        cluster = {"certificate-authority": str(authority.path), "proxy-url": proxy.url}
        async with agent_running(tmp_path, api.kubeconfig(tmp_path, {"token": "t"}, cluster), NMT) as it:
            await eventually(lambda: hint in (it.agent.reporter.problem or ""))
            proxy.refuse = None
            await api.until(lambda: api.writes)
            await it.shut_down()


async def test_an_unreachable_proxy_is_reported(tmp_path: Path) -> None:
    async with fake_api() as api:
        path = api.kubeconfig(tmp_path, {"token": "t"}, {"proxy-url": "http://127.0.0.1:9"})
        async with agent_running(tmp_path, path, NMT) as it:
            await eventually(lambda: "cannot reach the proxy" in (it.agent.reporter.problem or ""))
            await it.shut_down()
