"""Platform and hardware of the machine, for the report (requirement B1). I/O, once at the agent's start.

Never fails: a value that cannot be determined is None or empty.
"""

import os
import platform
import shutil
import socket
import subprocess
from typing import Final

import psutil

from hotpool.api.capability import Gpu, Hardware, Platform
from hotpool_agent.untrusted_text import representable

_MIB: Final = 1024 * 1024
_GPU_SECONDS: Final = 5
_MEMORY_DIGITS: Final = 10
_ARCH: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def this_platform(node: str | None) -> Platform:
    """Return operating system and processor in Go's terms (GOOS, GOARCH), and the host name.

    `node`: name of the Kubernetes Node, if known. It replaces the host name, which in a pod is the pod's own.
    """
    machine, hostname = platform.machine().lower(), representable(node or socket.gethostname()) or ""
    return Platform(os=platform.system().lower(), arch=_ARCH.get(machine, machine), hostname=hostname[:253] or None)


def this_hardware() -> Hardware:
    """Return processors, memory and at most 64 NVIDIA GPUs."""
    return Hardware(cpus=os.cpu_count(), memory_mib=psutil.virtual_memory().total // _MIB, gpus=_gpus()[:64])


def _gpus() -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_SECONDS, check=True)  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(_gpu(line) for line in result.stdout.splitlines() if line.strip())


def _gpu(line: str) -> Gpu:
    model, _, memory = line.rpartition(",")
    text = memory.strip()
    known = text.isascii() and text.isdecimal() and len(text) < _MEMORY_DIGITS
    return Gpu(model=(representable(model.strip()) or "")[:253] or None, memory_mib=int(text) if known else None)
