"""Hot-plug by the catalogue (requirement A10) and commands from the cluster (requirement A2): real processes.

Requirement A8.
"""

import asyncio
import copy
import socket
import threading
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from tests.support.agent_run import agent_running, capability, eventually, supervised, write_catalogue
from tests.support.fake_api import FakeApi, Fault, is_watch

from hotpool_agent.catalogue.loader import CatalogueError, read_catalogue
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.service_manager import CommandError
from hotpool_agent.services import ports
from localfleet.ports import free_port


def auto(identifier: str, port: int, *arguments: str, type_: str = "asr", more: str = "") -> str:
    return supervised(identifier, port, *arguments, type_=type_).replace("  run:", f"  autoStart: true\n{more}  run:")


def service(api: FakeApi, identifier: str = "s") -> dict[str, Any]:
    """Return a service of the stored report."""
    services: list[dict[str, Any]] = (api.report("n1") or {}).get("services", [])
    return next((item for item in services if item["id"] == identifier), {})


def patch_spec(api: FakeApi, **spec: Any) -> None:
    """Write the spec of the node's object, as kubectl patch does."""
    changed = copy.deepcopy(api.objects["nodecapabilities", "n1"])
    changed["spec"] = spec
    api.put("nodecapabilities", "n1", changed)


async def test_services_are_added_and_removed_while_others_keep_running(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    other = free_port()
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port)) as it:
        await api.until(lambda: capability(api) == (True, None))
        pid = it.service("s").machine.pid
        write_catalogue(tmp_path, auto("s", port) + auto("t", other, type_="tts"))
        assert await it.agent.reload() == "added 1, removed 0, replaced 0, revised 0"
        await api.until(lambda: capability(api, "tts") == (True, None))
        assert it.service("s").machine.pid == pid
        gone = it.service("t").machine.pid
        write_catalogue(tmp_path, auto("s", port))
        assert await it.agent.reload() == "added 0, removed 1, replaced 0, revised 0"
        await api.until(lambda: not service(api, "t"))
        assert capability(api, "tts") == (False, "")
        assert not psutil.pid_exists(gone or 0)
        assert it.service("s").machine.pid == pid
        states = [item["state"] for write in api.writes for item in write.report["services"] if item["id"] == "t"]
        assert states[-1] in {"Stopping", "Stopped"}
        await it.shut_down()


async def test_attributes_change_without_a_new_process(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port)) as it:
        await api.until(lambda: capability(api) == (True, None))
        pid = it.service("s").machine.pid
        write_catalogue(tmp_path, auto("s", port, more="  attributes: {languages: [zh, en]}\n"))
        assert await it.agent.reload() == "added 0, removed 0, replaced 0, revised 1"
        await api.until(lambda: service(api).get("languages") == ["zh", "en"])
        assert it.service("s").machine.pid == pid
        assert all(item["ready"] for item in (api.report("n1") or {})["capabilities"])
        await it.shut_down()


async def test_a_service_with_another_command_is_replaced_and_keeps_its_desired_state(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port)) as it:
        await it.until("s", "Running")
        await it.agent.services.command("restart", "s", wait=True)
        pid = it.service("s").machine.pid
        write_catalogue(tmp_path, supervised("s", port, "--type", "other"))
        assert await it.agent.reload() == "added 0, removed 0, replaced 1, revised 0"
        await it.until("s", "Running")
        assert it.service("s").machine.pid != pid
        await api.until(lambda: service(api).get("desiredBy") == "local" and capability(api) == (True, None))
        await it.shut_down()


async def test_a_port_may_move_from_a_service_to_another(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("old", port)) as it:
        await it.until("old", "Running")
        write_catalogue(tmp_path, auto("new", port))
        await it.agent.reload()
        await it.until("new", "Running")
        assert it.service("new").machine.restarts == 0
        assert "old" not in it.agent.store.state.services
        await it.shut_down()


async def test_an_invalid_catalogue_is_rejected_whole_and_the_old_one_stays_in_force(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port)) as it:
        await it.until("s", "Running")
        pid = it.service("s").machine.pid
        path = write_catalogue(tmp_path, auto("s", port) + "- {id: UPPER, type: asr}\n- {id: x, port: 99999}\n")
        with pytest.raises(CatalogueError) as caught:
            await it.agent.reload()
        assert len(caught.value.errors) >= 3
        assert (list(it.agent.services.services), it.service("s").machine.pid) == (["s"], pid)
        assert str(path) in (it.agent.catalogue_problem or "")
        write_catalogue(tmp_path, auto("s", port))
        await it.agent.reload()
        assert it.agent.catalogue_problem is None
        await it.shut_down()


async def test_after_two_reloads_the_catalogue_that_was_written_last_is_in_force(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reload reads slowly, as from a network drive."""
    slow, begun = threading.Event(), threading.Event()

    def read_slowly(path: Path) -> Catalogue:
        catalogue = read_catalogue(path)
        if not begun.is_set():
            begun.set()
            slow.wait(30)
        return catalogue

    async with agent_running(tmp_path, api.kubeconfig(tmp_path), "") as it:
        await api.until(lambda: api.writes)
        monkeypatch.setattr("hotpool_agent.app.read_catalogue", read_slowly)
        write_catalogue(tmp_path, supervised("old", free_port()))
        first = asyncio.create_task(it.agent.reload())
        await eventually(begun.is_set)
        write_catalogue(tmp_path, supervised("new", free_port()))
        second = asyncio.create_task(it.agent.reload())
        await asyncio.wait({second}, timeout=0.3)
        slow.set()
        await asyncio.gather(first, second)
        assert list(it.agent.services.services) == ["new"]
        await it.shut_down()


async def test_a_reload_during_the_first_probes_waits_for_them(api: FakeApi, tmp_path: Path, port: int) -> None:
    hung = "- {{id: {}, type: asr, observe: {{http: {{path: /}}, timeoutSeconds: 0.6}}, port: {}}}\n"
    with socket.create_server(("127.0.0.1", port)):
        entries = "".join(hung.format(name, port) for name in ("a", "b", "c"))
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries) as it:
            await eventually(lambda: "c" in it.agent.services.services)
            write_catalogue(tmp_path, hung.format("a", port))
            assert await it.agent.reload() == "added 0, removed 2, replaced 0, revised 0"
            await api.until(lambda: capability(api) == (False, "Failed"))
            assert list(it.agent.services.services) == ["a"]
            await it.shut_down()


async def test_changed_probes_are_in_force_at_once(api: FakeApi, tmp_path: Path, port: int) -> None:
    ready = "  ready: {{http: {{path: /health}}, periodSeconds: 0.05}}\n  live: {{http: {{path: /health}}, {}}}\n"
    entry = supervised("s", port, more=ready.format("periodSeconds: 3600"))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        async with aiohttp.ClientSession() as session:
            await session.post(f"http://127.0.0.1:{port}/health?status=503")
        write_catalogue(tmp_path, supervised("s", port, more=ready.format("periodSeconds: 0.05")))
        assert await it.agent.reload() == "added 0, removed 0, replaced 0, revised 1"
        await it.until("s", "Failed")
        await it.shut_down()


async def test_a_starting_service_is_probed_by_the_new_catalogue(api: FakeApi, tmp_path: Path, port: int) -> None:
    def entry(path: str) -> str:
        more = f"  ready: {{http: {{path: {path}, expectBody: asr}}, periodSeconds: 0.05, startSeconds: 60}}\n"
        return supervised("s", port, "--type", "asr", more=more)

    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry("/health")) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=False)
        await eventually(lambda: ports.is_listening(port))
        write_catalogue(tmp_path, entry("/"))
        await it.agent.reload()
        await it.until("s", "Running")
        await it.shut_down()


async def test_a_service_that_is_no_longer_heavy_leaves_the_start_queue(api: FakeApi, tmp_path: Path) -> None:
    heavy = "  heavy: true\n  run:"
    first = supervised("h1", free_port(), "--start-delay", "30").replace("  run:", heavy)
    second = supervised("h2", free_port())
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), first + second.replace("  run:", heavy)) as it:
        await it.until("h2", "Stopped")
        for identifier in ("h1", "h2"):
            await it.agent.services.command("start", identifier, wait=False)
        await eventually(lambda: it.service("h1").machine.pid)
        assert it.service("h2").machine.pid is None
        write_catalogue(tmp_path, first + second)
        await it.agent.reload()
        await it.agent.services.command("start", "h2", wait=False)
        await it.until("h2", "Running")
        await it.shut_down()


async def test_a_restart_gives_a_new_process_and_withdraws_meanwhile(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port)) as it:
        await api.until(lambda: capability(api) == (True, None))
        pid, count = it.service("s").machine.pid, len(api.writes)
        assert await it.agent.services.command("restart", "s", wait=True) == "s: Running"
        assert it.service("s").machine.pid != pid
        await api.until(lambda: capability(api) == (True, None))
        assert not api.writes[count].report["capabilities"][0]["ready"]
        await it.shut_down()


async def test_the_cluster_stops_and_starts_a_service_and_the_report_names_it(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port)) as it:
        await api.until(lambda: capability(api) == (True, None))
        patch_spec(
            api, services=[{"id": "s", "desired": "Stopped", "requestID": "1"}, {"id": "x", "desired": "Running"}]
        )
        await it.until("s", "Stopped")
        await api.until(lambda: service(api)["state"] == "Stopped")
        stored = service(api)
        assert (stored["desired"], stored["desiredBy"], stored["requestID"]) == ("Stopped", "cluster", "1")
        patch_spec(api, services=[{"id": "s", "desired": "Running", "requestID": "2"}])
        await it.until("s", "Running")
        await it.shut_down()


async def test_a_command_that_is_written_between_the_list_and_the_watch_is_carried_out(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    watch = Fault(is_watch, "held")
    api.faults.append(watch)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await api.until(lambda: watch.times == 0 and service(api))
        patch_spec(api, services=[{"id": "s", "desired": "Running", "requestID": "1"}])
        watch.release.set()
        await it.until("s", "Running")
        await it.shut_down()


async def test_the_last_command_wins_and_survives_restarts(api: FakeApi, tmp_path: Path, port: int) -> None:
    kubeconfig = api.kubeconfig(tmp_path)
    async with agent_running(tmp_path, kubeconfig, auto("s", port)) as it:
        await api.until(lambda: capability(api) == (True, None))
        patch_spec(api, services=[{"id": "s", "desired": "Stopped", "requestID": "1"}])
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        patch_spec(api, drain=True, services=[{"id": "s", "desired": "Stopped", "requestID": "1"}])
        await api.until(lambda: service(api)["desiredBy"] == "local")
        assert it.state("s") == "Running"
        await it.shut_down()
    async with agent_running(tmp_path, kubeconfig, auto("s", port)) as it:
        await it.until("s", "Running")
        await api.until(lambda: capability(api) == (True, None))
        assert it.state("s") == "Running"
        patch_spec(api, services=[{"id": "s", "desired": "Stopped", "requestID": "2"}])
        await it.until("s", "Stopped")
        await it.shut_down()
    async with agent_running(tmp_path, kubeconfig, auto("s", port)) as it:
        await api.until(lambda: (api.report("n1") or {}).get("session") == it.agent.blank.session)
        assert it.state("s") == "Stopped"
        await it.shut_down()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_service_that_is_removed_and_added_again_follows_the_last_command(
    api: FakeApi, tmp_path: Path, port: int, *, restarted: bool
) -> None:
    kubeconfig, entry = api.kubeconfig(tmp_path), supervised("s", port)
    async with agent_running(tmp_path, kubeconfig, entry) as it:
        await api.until(lambda: service(api) and api.watches)
        patch_spec(api, services=[{"id": "s", "desired": "Stopped", "requestID": "1"}])
        await api.until(lambda: service(api)["requestID"] == "1")
        await it.agent.services.command("start", "s", wait=True)
        write_catalogue(tmp_path, "")
        await it.agent.reload()
        if not restarted:
            write_catalogue(tmp_path, entry)
            await it.agent.reload()
            await it.until("s", "Running")
            await api.until(lambda: service(api).get("desiredBy") == "local")
        await it.shut_down()
    if restarted:
        async with agent_running(tmp_path, kubeconfig, "") as it:
            await api.until(lambda: api.watches)
            write_catalogue(tmp_path, entry)
            await it.agent.reload()
            await it.until("s", "Running")
            await it.shut_down()


async def test_a_removed_service_is_forgotten_with_its_command(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await api.until(lambda: service(api) and api.watches)
        patch_spec(api, services=[{"id": "s", "desired": "Running", "requestID": "1"}])
        await it.until("s", "Running")
        write_catalogue(tmp_path, "")
        await it.agent.reload()
        assert it.agent.store.state.services["s"].acted == ("Running", "1")
        patch_spec(api, services=[])
        await eventually(lambda: "s" not in it.agent.store.state.services)
        write_catalogue(tmp_path, supervised("s", port))
        await it.agent.reload()
        assert it.state("s") == "Stopped"
        await it.shut_down()


async def test_drain_changes_no_service(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port)) as it:
        await api.until(lambda: capability(api) == (True, None))
        pid, count = it.service("s").machine.pid, len(api.writes)
        patch_spec(api, drain=True, services=[])
        await it.agent.reporter.flush()
        assert (it.state("s"), it.service("s").machine.pid, len(api.writes)) == ("Running", pid, count)
        await it.shut_down()


async def test_a_command_for_a_service_that_is_added_later_waits_for_it(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), "") as it:
        await api.until(lambda: api.writes)
        patch_spec(api, services=[{"id": "s", "desired": "Running", "requestID": "1"}])
        with pytest.raises(CommandError, match="no such service"):
            await it.agent.services.command("start", "s", wait=True)
        write_catalogue(tmp_path, supervised("s", port))
        await it.agent.reload()
        await it.until("s", "Running")
        await it.shut_down()


async def test_setting_auto_start_starts_the_service_at_the_next_reload(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await it.until("s", "Stopped")
        write_catalogue(tmp_path, auto("s", port))
        await it.agent.reload()
        await it.until("s", "Running")
        await api.until(lambda: service(api).get("desiredBy") == "catalogue" and capability(api) == (True, None))
        # Unsetting it is no command to stop.
        write_catalogue(tmp_path, supervised("s", port))
        await it.agent.reload()
        assert it.state("s") == "Running"
        await it.shut_down()


@pytest.mark.parametrize("agent", ["runs", "is restarted"])
async def test_setting_auto_start_replaces_an_earlier_stop_and_a_later_stop_replaces_it(
    api: FakeApi, tmp_path: Path, port: int, agent: str
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await it.agent.services.command("stop", "s", wait=True)
        if agent == "runs":
            write_catalogue(tmp_path, auto("s", port))
            await it.agent.reload()
            await it.until("s", "Running")
        await it.shut_down()
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto("s", port)) as it:
        await it.until("s", "Running")
        await it.agent.services.command("stop", "s", wait=True)
        write_catalogue(tmp_path, auto("s", port, more="  attributes: {languages: [en]}\n"))
        assert await it.agent.reload() == "added 0, removed 0, replaced 0, revised 1"
        await api.until(lambda: service(api).get("languages") == ["en"])
        assert it.state("s") == "Stopped"
        await it.shut_down()


@pytest.mark.parametrize("agent", ["runs", "is restarted"])
async def test_a_service_that_is_removed_and_added_again_does_not_obey_an_old_command_of_the_cluster(
    api: FakeApi, tmp_path: Path, port: int, agent: str
) -> None:
    kubeconfig = api.kubeconfig(tmp_path)
    async with agent_running(tmp_path, kubeconfig, auto("s", port)) as it:
        await api.until(lambda: capability(api) == (True, None))
        patch_spec(api, services=[{"id": "s", "desired": "Stopped", "requestID": "1"}])
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        write_catalogue(tmp_path, "")
        await it.agent.reload()
        if agent == "runs":
            write_catalogue(tmp_path, auto("s", port))
            await it.agent.reload()
            await it.until("s", "Running")
        await it.shut_down()
    async with agent_running(tmp_path, kubeconfig, auto("s", port)) as it:
        await it.until("s", "Running")
        await api.until(lambda: (api.report("n1") or {}).get("session") == it.agent.blank.session)
        assert it.state("s") == "Running"
        patch_spec(api, services=[{"id": "s", "desired": "Stopped", "requestID": "2"}])
        await it.until("s", "Stopped")
        patch_spec(api, services=[])
        write_catalogue(tmp_path, "")
        await it.agent.reload()
        await eventually(lambda: it.agent.store.state.services == {})
        await it.shut_down()
