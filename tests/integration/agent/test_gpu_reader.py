"""Reading of GPUs in a child process (requirements A12, B1): with a fake NVML that answers, fails or really hangs."""

import asyncio
import errno
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.agent_run import agent_running, eventually
from tests.support.fake_api import FakeApi

from hotpool.api.capability import Gpu
from hotpool_agent import gpu_reader
from hotpool_agent.gpu_reader import GpuReader, ReadPlan

NVML = """
import json, os, signal
from pathlib import Path

FOLDER = Path({folder!r})
with (FOLDER / "started").open("a") as file:
    file.write(f"{{os.getpid()}} ")
exec((FOLDER / "act").read_text())


class NVMLError(Exception):
    value = 9


def nvmlInit():
    if (FOLDER / "error").exists():
        raise NVMLError("Driver Not Loaded")


def nvmlDeviceGetCount():
    return len(json.loads((FOLDER / "gpus").read_text()))


def nvmlDeviceGetHandleByIndex(index):
    found = json.loads((FOLDER / "gpus").read_text())[index]
    if found[0] == "lost":
        error = NVMLError("GPU is lost")
        error.value = 15
        raise error
    return found


def nvmlDeviceGetName(handle):
    return handle[0]


def nvmlDeviceGetMemoryInfo(handle):
    class Info:
        total = handle[1] * 2**20

    return Info()
"""
STOP = "os.kill(os.getpid(), signal.SIGSTOP)"
OPEN = "(FOLDER / 'fifo').read_bytes()"
L4 = Gpu(model="NVIDIA L4", memory_mib=24576)


class FakeNvml:
    """A module `pynvml` for child processes, and a folder with a driver's device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "dev").mkdir(parents=True)
        (folder / "dev" / "nvidiactl").touch()
        os.mkfifo(folder / "fifo")
        (folder / "pynvml.py").write_text(NVML.format(folder=str(folder)))
        self.plan = ReadPlan(seconds=20, devices=folder / "dev", sysfs=folder / "sys")
        self.act("")
        self.has(("NVIDIA L4", 24576))

    def has(self, *gpus: tuple[Any, Any]) -> None:
        """Set the GPUs: name and MiB."""
        (self.folder / "gpus").write_text(json.dumps(gpus))

    def act(self, code: str) -> None:
        """Set what the module does when it is imported."""
        (self.folder / "act").write_text(code)

    def started(self) -> list[int]:
        """Return the pids of all child processes so far."""
        path = self.folder / "started"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml(tmp_path / "nvml")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(fake.folder), os.environ.get("PYTHONPATH", "")]))
    return fake


class Changes:
    """Calls of the reader, each with the GPUs at its time."""

    def __init__(self) -> None:
        self.seen: list[tuple[Gpu, ...]] = []
        self.reader: GpuReader | None = None

    def changed(self) -> None:
        assert self.reader
        self.seen.append(self.reader.gpus)

    async def wait_withdrawn(self, service: str) -> None:
        raise AssertionError(service)


@asynccontextmanager
async def reading(plan: ReadPlan, changes: Changes | None = None) -> AsyncIterator[GpuReader]:
    changes = changes or Changes()
    changes.reader = reader = GpuReader(changes, plan)
    task = asyncio.create_task(reader.run())
    yield reader
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_gpus_are_read_and_only_a_change_is_told(nvml: FakeNvml) -> None:
    changes = Changes()
    async with reading(nvml.plan, changes) as reader:
        await eventually(lambda: reader.gpus == (L4,), 20)
        reader.request()
        await eventually(lambda: len(nvml.started()) == 2, 20)
        nvml.has(("NVIDIA L4", 24576), ("NVIDIA L40S", 46068))
        reader.request()
        await eventually(lambda: len(reader.gpus) == 2, 20)
    assert changes.seen == [(L4,), (L4, Gpu(model="NVIDIA L40S", memory_mib=46068))]


async def test_a_gpu_that_fell_off_the_bus_is_left_out(nvml: FakeNvml) -> None:
    async with reading(nvml.plan) as reader:
        await eventually(lambda: reader.gpus == (L4,), 20)
        nvml.has(("lost", 0), ("NVIDIA L40S", 46068))
        reader.request()
        await eventually(lambda: reader.gpus == (Gpu(model="NVIDIA L40S", memory_mib=46068),), 20)
        assert reader.problem is None


async def test_gpus_are_read_again_after_a_period(nvml: FakeNvml) -> None:
    async with reading(replace(nvml.plan, period=0.01)):
        await eventually(lambda: len(nvml.started()) > 1, 30)


@pytest.mark.parametrize("act", [STOP, OPEN], ids=["stopped", "fifo"])
async def test_a_driver_that_hangs_is_a_problem_and_keeps_the_last_gpus(nvml: FakeNvml, act: str) -> None:
    async with reading(nvml.plan) as reader:
        await eventually(lambda: reader.gpus == (L4,), 20)
        nvml.act(act)
        reader._plan = replace(nvml.plan, seconds=0.5)  # noqa: SLF001
        reader.request()
        await eventually(lambda: reader.problem == "no end in 0.5 s")
        await eventually(lambda: not any(map(psutil.pid_exists, nvml.started())))
        assert reader.gpus == (L4,)
        nvml.act("")
        reader._plan = nvml.plan  # noqa: SLF001
        reader.request()
        await eventually(lambda: reader.problem is None, 20)


async def test_a_child_that_cannot_be_killed_is_abandoned_and_no_second_one_is_started(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.act(STOP)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda *_: None)  # Like a process in uninterruptible sleep.
        async with reading(replace(nvml.plan, seconds=0.2, period=0.01)) as reader:
            await eventually(lambda: nvml.started() and reader.problem == "no end in 0.2 s", 20)
            for _ in range(3):
                reader.problem = None
                await eventually(lambda: reader.problem == "no end in 0.2 s")
    (child,) = nvml.started()
    os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        ("raise ImportError", "nvidia-ml-py is not installed: pip install 'hotpool[agent,nvidia]'"),
        ("(FOLDER / 'error').touch()", "NVML: Driver Not Loaded"),
        ("os._exit(3)", "exit code 3"),
        ("os.abort()", "killed by SIGABRT"),
        ("print('{\"gpus\": [' * 50000)\nos._exit(0)", "no valid answer"),
    ],
)
async def test_a_failure_is_a_problem_with_its_reason(nvml: FakeNvml, act: str, problem: str) -> None:
    nvml.act(act)
    async with reading(nvml.plan) as reader:
        await eventually(lambda: reader.problem == problem, 20)
        assert reader.gpus == ()


async def test_values_are_bounded_and_can_be_reported(nvml: FakeNvml) -> None:
    nvml.has(("x" * 3000, 2**40), ("A \ud83c\0\n100", True), (7, -1), *(("many", 1) for _ in range(100)))
    async with reading(nvml.plan) as reader:
        await eventually(lambda: reader.gpus, 20)
    assert reader.gpus[:3] == (Gpu(model="x" * 253), Gpu(model="A \ufffd\ufffd100", memory_mib=1), Gpu())
    assert len(reader.gpus) == 64


async def test_without_a_driver_no_child_is_started(nvml: FakeNvml) -> None:
    (nvml.folder / "dev" / "nvidiactl").unlink()
    reader = GpuReader(Changes(), nvml.plan)
    await reader._read()  # noqa: SLF001
    assert (reader.gpus, reader.problem, nvml.started()) == ((), None, [])


def answers(fifo: Path) -> bool:
    """Let the driver answer. Return False if no child waits for it yet."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


async def test_an_agent_does_not_wait_for_gpus_and_reports_them_later(
    api: FakeApi, tmp_path: Path, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gpus() -> list[Any] | None:
        report = api.report("n1")
        return report["hardware"]["gpus"] if report else None

    nvml.act(OPEN)
    monkeypatch.setattr(gpu_reader, "ReadPlan", lambda: nvml.plan)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), "") as it:
        await api.until(lambda: gpus() == [])
        await eventually(lambda: answers(nvml.folder / "fifo"), 20)
        await api.until(lambda: gpus() == [{"model": "NVIDIA L4", "memoryMiB": 24576}])
        nvml.act("os._exit(1)")
        requests: asyncio.Queue[None] = asyncio.Queue()
        reloading = asyncio.create_task(it.agent.reload_on_sighup(requests))
        requests.put_nowait(None)
        await eventually(lambda: it.agent.health().problems.get("gpus") == "exit code 1", 20)
        assert it.agent.metrics.registry.get_sample_value("hotpool_agent_gpus_readable") == 0
        assert gpus() == [{"model": "NVIDIA L4", "memoryMiB": 24576}]
        reloading.cancel()
        await it.shut_down()
