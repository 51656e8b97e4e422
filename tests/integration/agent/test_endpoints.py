"""Endpoints of services in reports (requirement B13): real processes and sockets.

Services listen on loopback, or on addresses of a network namespace of the test's own.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.agent_process import daemon, finish, spawn
from tests.support.agent_run import agent_running, capability, eventually, supervised, write_catalogue
from tests.support.fake_api import FakeApi, fake_api
from tests.support.fake_pods import pod
from tests.support.own_network import add, remove, run_in_own_network

from hotpool_agent.control.protocol import Request
from hotpool_agent.endpoints import checker, interfaces
from hotpool_agent.probes.http_tcp import ProbeResult, tcp
from localfleet.ports import free_port

Json = dict[str, Any]
OWN, OWN_V6 = "10.9.0.7", "fd00:9::7"
LOOPBACK_BUT_NOT_OF_SERVICES = "127.0.0.2"
"""An address of this machine at which a service of 127.0.0.1 does not answer."""
QUICK_VERDICT_SECONDS = 2.0
"""Time in which a busy machine has a first verdict on a service; a debounce of this time waits for it."""


def auto(identifier: str, port: int, *arguments: str, more: str = "") -> str:
    return supervised(identifier, port, *arguments).replace("  run:", f"  autoStart: true\n{more}  run:")


def observed(identifier: str, port: int) -> str:
    return f"- {{id: {identifier}, type: asr, port: {port}, observe: {{tcp: {{}}, periodSeconds: 0.05}}}}\n"


def service(report: Json | None, identifier: str = "s") -> Json:
    """Return a service of a report."""
    return next((item for item in (report or {}).get("services", []) if item["id"] == identifier), {})


def endpoint(report: Json | None, identifier: str = "s") -> str | None:
    """Return the endpoint of a service in a report as addresses (`node`: the node's) and port, or the reason."""
    found = service(report, identifier)
    if where := found.get("endpoint"):
        return f"{' '.join(where['addresses']) or 'node'} {where['port']}"
    return found.get("endpointReason")


def history(api: FakeApi, identifier: str = "s") -> list[str | None]:
    """Return the endpoints of a running service in all reports, each once in a row."""
    reports = [write.report for write in api.writes if service(write.report, identifier).get("state") == "Running"]
    found = [endpoint(report, identifier) for report in reports]
    return [one for index, one in enumerate(found) if index == 0 or found[index - 1] != one]


async def test_a_service_that_listens_on_loopback_only_is_ready_and_has_no_endpoint(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    services = supervised("s", port) + auto("local", free_port(), more="  scope: local\n")
    services += "- {id: portless, type: asr, observe: {file: {path: n1.yaml}}}\n"
    settings: Json = {"advertise": LOOPBACK_BUT_NOT_OF_SERVICES, "debounce": QUICK_VERDICT_SECONDS}
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), services, **settings) as it:
        await api.until(lambda: api.report("n1"))
        await it.agent.services.command("start", "s", wait=True)
        await api.until(lambda: endpoint(api.report("n1")) == "LoopbackOnly")
        assert capability(api) == (True, None)
        assert service(api.report("n1"))["lastError"] is None
        await api.until(lambda: endpoint(api.report("n1"), "local") == "Local")
        assert endpoint(api.report("n1"), "portless") == "NoPort"
        assert (api.report("n1") or {})["addresses"] == [{"ip": "127.0.0.2", "source": "Catalogue"}]
        assert history(api) == ["LoopbackOnly"], "the first verdict is in the report of the gain"
        await it.shut_down()


async def test_a_service_on_another_port_is_one_report_with_the_new_endpoint(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    other = free_port()
    settings: Json = {"advertise": "127.0.0.1", "debounce": QUICK_VERDICT_SECONDS}
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port), **settings) as it:
        await api.until(lambda: endpoint(api.report("n1")) == f"node {port}")
        write_catalogue(tmp_path, auto("s", other))
        await it.agent.reload()
        await api.until(lambda: endpoint(api.report("n1")) == f"node {other}")
        assert history(api) == [f"node {port}", f"node {other}"]
        gone = [service(write.report) for write in api.writes if service(write.report)["state"] != "Running"]
        assert {(item["endpoint"], item["endpointReason"]) for item in gone} == {(None, None)}
        await it.shut_down()


async def test_scope_and_protocol_change_without_a_new_process_and_at_once(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    settings: Json = {"advertise": "127.0.0.1", "debounce": 60.0}
    local, grpc = auto("s", port, more="  scope: local\n"), auto("s", port, more="  appProtocol: grpc\n")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), local, **settings) as it:

        async def revise(entry: str) -> None:
            write_catalogue(tmp_path, entry)
            await it.agent.reload()

        async def until_reported(expected: str) -> None:
            await eventually(lambda: endpoint(it.agent.source.read().report.model_dump(by_alias=True)) == expected)
            await it.agent.reporter.flush()
            assert endpoint(api.report("n1")) == expected

        await it.until("s", "Running")
        pid = it.service("s").machine.pid
        await until_reported("Local")
        await revise(auto("s", port))
        await until_reported(f"node {port}")
        for entry, expected in ((grpc, f"node {port}"), (local, "Local")):
            before = len(api.writes)
            await revise(entry)
            await api.until(lambda before=before: len(api.writes) > before)  # type: ignore[misc]
            assert endpoint(api.report("n1")) == expected
        protocols = [(service(write.report)["endpoint"] or {}).get("appProtocol") for write in api.writes]
        assert protocols[-3:] == [None, "grpc", None]
        assert it.service("s").machine.pid == pid
        await it.shut_down()


async def test_the_addresses_of_the_catalogue_change_with_a_reload(api: FakeApi, tmp_path: Path) -> None:
    def head(address: str) -> str:
        return f"advertise: {{addresses: [{address}]}}\n"

    with socket.create_server(("127.0.0.1", 0)) as listening:
        entry = observed("s", listening.getsockname()[1])
        async with agent_running(
            tmp_path, api.kubeconfig(tmp_path), entry, head=head("203.0.113.1"), advertise="", interval=120
        ) as it:
            await api.until(lambda: str(endpoint(api.report("n1"))).startswith("node "))
            write_catalogue(tmp_path, entry, head=head("203.0.113.2"))
            await it.agent.reload()
            moved = [{"ip": "203.0.113.2", "source": "Catalogue"}]
            await api.until(lambda: (api.report("n1") or {})["addresses"] == moved)
            assert len(history(api)) == 1
            status = await it.agent.dispatch(Request(op="status"))
            assert status["addresses"] == moved


@pytest.mark.parametrize("kind", ["supervised", "observed"])
async def test_the_first_report_of_the_next_agent_has_the_endpoints_of_services_that_outlive_the_former_one(
    api: FakeApi, tmp_path: Path, port: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(address: str, port: int) -> ProbeResult:
        await asyncio.sleep(0.3)
        return await tcp(address, port)

    monkeypatch.setattr(checker, "tcp", slow)
    with ExitStack() as stack:
        if kind == "observed":
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        entry = auto("s", port) if kind == "supervised" else observed("s", port)
        for _ in range(2):
            async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry, advertise="127.0.0.1") as it:
                session = it.agent.blank.session
                await api.until(
                    lambda session=session: (  # type: ignore[misc]
                        (api.report("n1") or {}).get("session") == session
                        and endpoint(api.report("n1")) == f"node {port}"
                    )
                )
        first = next(index for index, write in enumerate(api.writes) if endpoint(write.report) == f"node {port}")
        assert {endpoint(write.report) for write in api.writes[first:]} == {f"node {port}"}


@contextmanager
def unresponsive(address: str, port: int) -> Iterator[None]:
    """Listen with a full backlog: further connections are neither accepted nor refused."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((address, port))
        yield


async def test_a_connection_that_hangs_delays_neither_heartbeats_nor_a_withdrawal(
    api: FakeApi, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Json = {"advertise": LOOPBACK_BUT_NOT_OF_SERVICES}
    with unresponsive(LOOPBACK_BUT_NOT_OF_SERVICES, port), ExitStack() as running:
        running.enter_context(socket.create_server(("127.0.0.1", port)))
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), observed("s", port), **settings):
            await api.until(lambda: capability(api) == (True, None))
            beats = len(api.beats)
            await api.until(lambda: endpoint(api.report("n1")) == "LoopbackOnly" and len(api.beats) > beats + 1)
            running.close()
            await api.until(lambda: capability(api) == (False, "Stopped"))
            monkeypatch.setattr(checker, "_CONNECT_SECONDS", 100.0)
            running.enter_context(socket.create_server(("127.0.0.1", port)))
            await api.until(lambda: capability(api) == (True, None))
            assert endpoint(api.report("n1")) == "Unchecked", "the first tries still hang"
            running.close()
            await api.until(lambda: capability(api) == (False, "Stopped"), seconds=30)


async def test_a_pod_has_its_own_endpoint_and_a_changed_address_is_reported_at_once(
    api: FakeApi, tmp_path: Path
) -> None:
    running = pod("s", port="8000", app_protocol="http")
    api.pods.put(running)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), None, pod_namespaces="speech", debounce=60.0) as it:
        expected = "10.1.0.7 fd00:1::7 8000"
        await eventually(lambda: endpoint(it.agent.source.read().report.model_dump(by_alias=True)) == expected)
        await it.agent.reporter.flush()
        await api.until(lambda: endpoint(api.report("n1")) == expected)
        assert service(api.report("n1"))["pod"] == {"namespace": "speech", "name": "s", "uid": "uid-s"}
        moved = pod("s", port="8000")
        moved["status"]["podIPs"] = [{"ip": "10.1.0.8"}]
        api.pods.put(moved)
        await api.until(lambda: endpoint(api.report("n1")) == "10.1.0.8 8000", seconds=30)
        assert history(api) == ["10.1.0.7 fd00:1::7 8000", "10.1.0.8 8000"]


async def test_an_advertised_address_that_no_client_can_use_is_refused_at_the_start(
    environment: dict[str, str],
) -> None:
    odd = environment | {"HOTPOOL_AGENT_ADVERTISE": "10.0.0.1, 169.254.0.1"}
    result = await finish(await spawn(odd, "run", "--node", "n1", "--pod-namespaces", "speech"))
    assert result.code == 2
    assert result.err.startswith("HOTPOOL_AGENT_ADVERTISE: no client can connect to a link-local, multicast or")


def test_the_agent_finds_its_addresses_by_its_routes_and_follows_them(
    tmp_path: Path, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    """The API server is on loopback, so the default routes count. `port` is free in the new network, too."""
    only_v4, only_v6, loopback = (free_port() for _ in range(3))
    services = auto("four", only_v4, "--host", "0.0.0.0")  # noqa: S104 - in a network of its own
    services += auto("six", only_v6, "--host", "::", "--only-ipv6") + auto("s", loopback)
    found = environment.copy()
    del found["HOTPOOL_AGENT_ADVERTISE"]

    async def scenario() -> None:
        async with fake_api() as api, daemon(api, tmp_path, found, services):

            def places(name: str) -> str | None:
                return endpoint(api.report("n1"), name)

            def addresses() -> list[str]:
                return [f"{item['ip']} {item['source']}" for item in (api.report("n1") or {})["addresses"]]

            await api.until(lambda: places("four") == f"{OWN} {only_v4}", seconds=60)
            await api.until(lambda: places("six") == f"{OWN_V6} {only_v6}", seconds=60)
            await api.until(lambda: places("s") == "LoopbackOnly", seconds=60)
            assert all(item["ready"] for item in (api.report("n1") or {})["capabilities"])
            assert addresses() == [f"{OWN} Route", f"{OWN_V6} Route"]
            before = len(api.writes)
            add("10.9.0.8/32")
            remove(f"{OWN}/32")
            await api.until(lambda: places("four") == f"10.9.0.8 {only_v4}", seconds=60)
            assert addresses() == ["10.9.0.8 Route", f"{OWN_V6} Route"]
            moved = [write.report for write in api.writes[before:]]
            assert {endpoint(report, "four") for report in moved} <= {f"{OWN} {only_v4}", f"10.9.0.8 {only_v4}"}
            remove(f"{OWN_V6}/128")
            await api.until(lambda: places("six") == "LoopbackOnly", seconds=60)
            assert places("four") == f"node {only_v4}"

    run_in_own_network(request, scenario, f"{OWN}/32", f"{OWN_V6}/128")


def test_routes_and_interfaces_are_read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # /proc/net is that of the process; only a thread of it is in the network.
    monkeypatch.setattr(interfaces, "_INET6", Path("/proc/thread-self/net/if_inet6"))

    async def scenario() -> None:
        assert interfaces.source_of_route("127.0.0.1") == "127.0.0.1"
        assert interfaces.source_of_route("::1") == "::1"
        assert [interfaces.source_of_route(address) for address in interfaces.BEYOND] == [OWN, OWN_V6]
        add("fd00:9::9/64", "preferred_lft", "0")
        assert interfaces.interface_addresses() == {"127.0.0.1", "::1", OWN, OWN_V6, "fd00:9::9"}
        fit = {item.ip: (item.prefix_length, item.is_fit) for item in interfaces.inet6_addresses()}
        assert fit == {"::1": (128, True), OWN_V6: (128, True), "fd00:9::9": (64, False)}
        remove(f"{OWN}/32")
        remove(f"{OWN_V6}/128")
        assert interfaces.source_of_route(interfaces.BEYOND[0]) in {None, "0.0.0.0"}  # noqa: S104 - nothing is bound

    run_in_own_network(request, scenario, f"{OWN}/32", f"{OWN_V6}/128")


def test_a_route_is_found_without_sending_a_packet(request: pytest.FixtureRequest) -> None:
    async def scenario() -> None:
        def sent() -> list[str]:
            lines = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii").splitlines()
            return [line for line in lines if line.startswith(("Udp:", "Ip:"))]

        before = sent()
        for address in interfaces.BEYOND:
            interfaces.source_of_route(address)
        assert sent() == before

    run_in_own_network(request, scenario, f"{OWN}/32", f"{OWN_V6}/128")
