"""Reading of AMD GPUs in a child process (requirements A12, B1): a made sysfs, and a read that really hangs."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.support.agent_run import eventually

from hotpool.api.capability import Gpu
from hotpool_agent.gpu_reader import GpuReader, ReadPlan
from hotpool_agent.state_store import StateStore, open_store

MI300X = Gpu(model="AMD Instinct MI300X", memory_mib=196_592)


class Machine:
    """A folder with a sysfs in which the driver amdgpu is loaded, and libdrm's file of names."""

    def __init__(self, folder: Path) -> None:
        self.drm = folder / "sys" / "class" / "drm"
        self.drm.mkdir(parents=True)
        (folder / "sys" / "module" / "amdgpu").mkdir(parents=True)
        (folder / "names").write_text("1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n744C,\tCC,\tAMD Radeon RX 7900 XT\n")
        self.plan = ReadPlan(seconds=20, devices=folder / "dev", sysfs=folder / "sys", amd_names=folder / "names")

    def card(self, number: int, **files: str | int) -> Path:
        """Add a card with these files, by default of AMD. Return the folder of its device."""
        device = self.drm / f"card{number}" / "device"
        device.mkdir(parents=True)
        for name, content in {"vendor": "0x1002", **files}.items():
            (device / name).write_text(f"{content}\n")
        return device


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.card(0, mem_info_vram_total=196_592 * 2**20, product_name="AMD Instinct MI300X", device="0x74a1")
    return made


class Changes:
    """Counts the calls of the reader."""

    def __init__(self) -> None:
        self.count = 0

    def changed(self) -> None:
        self.count += 1

    async def wait_withdrawn(self, service: str) -> None:
        raise AssertionError(service)


@asynccontextmanager
async def reading(
    plan: ReadPlan, store: StateStore | None = None, changes: Changes | None = None
) -> AsyncIterator[GpuReader]:
    reader = GpuReader(changes or Changes(), plan, store)
    task = asyncio.create_task(reader.run())
    yield reader
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_amd_gpus_are_read_in_order_of_the_cards_with_the_best_known_name(machine: Machine) -> None:
    machine.card(10, mem_info_vram_total=2**20, device="0x73bf", revision="0xc1")
    machine.card(2, mem_info_vram_total=24 * 2**30, product_name="", device="0x744c", revision="0xc8")
    machine.card(3, product_name="Radeon Pro W7900", mem_info_vram_total="?")
    machine.card(4)
    machine.card(1, vendor="0x8086", mem_info_vram_total=2**30)
    (machine.drm / "card0-DP-1").mkdir()
    (machine.drm / "renderD128" / "device").mkdir(parents=True)
    async with reading(machine.plan) as reader:
        await eventually(lambda: reader.gpus or reader.problem, 20)
    assert reader.problem is None
    assert reader.gpus == (
        MI300X,
        Gpu(model="AMD Radeon RX 7900 XTX", memory_mib=24 * 1024),
        Gpu(model="AMD Radeon Pro W7900"),
        Gpu(model="AMD"),
        Gpu(model="AMD 0x73bf", memory_mib=1),
    )


async def test_a_card_that_is_gone_is_a_change(machine: Machine) -> None:
    second = machine.card(1, mem_info_vram_total=2**30, product_name="AMD Instinct MI50")
    changes = Changes()
    async with reading(machine.plan, changes=changes) as reader:
        await eventually(lambda: len(reader.gpus) == 2, 20)
        (second / "vendor").unlink()
        reader.request()
        await eventually(lambda: reader.gpus == (MI300X,), 20)
    assert changes.count == 2


async def test_a_driver_that_hangs_is_a_problem_and_keeps_the_last_gpus(machine: Machine) -> None:
    size = machine.drm / "card0" / "device" / "mem_info_vram_total"
    ours = psutil.Process()
    others = {child.pid for child in ours.children()}
    async with reading(machine.plan) as reader:
        await eventually(lambda: reader.gpus == (MI300X,), 20)
        size.unlink()
        os.mkfifo(size)
        reader._plan = replace(machine.plan, seconds=0.5)  # noqa: SLF001
        reader.request()
        await eventually(lambda: reader.problem == "no end in 0.5 s", 20)
        await eventually(lambda: {child.pid for child in ours.children()} <= others, 20)
        assert reader.gpus == (MI300X,)


async def test_a_file_that_cannot_be_read_is_a_problem_with_its_name(machine: Machine) -> None:
    size = machine.drm / "card0" / "device" / "mem_info_vram_total"
    size.unlink()
    size.mkdir()
    async with reading(machine.plan) as reader:
        await eventually(lambda: reader.problem == f"Is a directory: {size}", 20)
        assert reader.gpus == ()


async def test_without_the_driver_no_child_is_started(machine: Machine) -> None:
    (machine.plan.sysfs / "module" / "amdgpu").rmdir()
    reader = GpuReader(Changes(), replace(machine.plan, seconds=0.0))
    await reader._read()  # noqa: SLF001
    assert (reader.gpus, reader.problem) == ((), None)


async def test_the_next_agent_begins_with_the_last_gpus_and_drops_those_without_a_driver(
    machine: Machine, tmp_path: Path
) -> None:
    store = open_store(tmp_path)
    writing = asyncio.create_task(store.write_forever())
    async with reading(machine.plan, store) as reader:
        await eventually(lambda: reader.gpus == (MI300X,), 20)
        assert await store.flush_within(20)
    changes, following = Changes(), open_store(tmp_path)
    reader = GpuReader(changes, machine.plan, following)
    assert reader.gpus == (MI300X,)
    await reader._read()  # noqa: SLF001
    assert (reader.gpus, changes.count) == ((MI300X,), 0)
    (machine.plan.sysfs / "module" / "amdgpu").rmdir()
    await reader._read()  # noqa: SLF001
    assert not reader.gpus
    assert not following.state.gpus
    assert changes.count == 1
    writing.cancel()


async def test_gpus_of_one_vendor_stay_while_those_of_the_other_one_are_read(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.plan.devices.mkdir()
    (machine.plan.devices / "nvidiactl").touch()
    (tmp_path / "pynvml.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    store = open_store(tmp_path)
    l4 = Gpu(model="NVIDIA L4", memory_mib=24_576)
    store.state.gpus = {"nvidia": (l4,)}
    async with reading(machine.plan, store) as reader:
        await eventually(lambda: reader.problem == "exit code 3", 20)
        assert reader.gpus == (MI300X, l4)
