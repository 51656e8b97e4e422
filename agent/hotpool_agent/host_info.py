"""Platform and hardware of the machine, for the report (requirement B1). I/O, once at the agent's start.

Never fails: a value that cannot be determined is None or empty.
"""

import os
import platform
import socket
from typing import Final

import psutil

from hotpool.api.capability import Hardware, Platform
from hotpool_agent.untrusted_text import representable

_MIB: Final = 1024 * 1024
_ARCH: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def this_platform(node: str | None) -> Platform:
    """Return operating system and processor in Go's terms (GOOS, GOARCH), and the host name.

    `node`: name of the Kubernetes Node, if known. It replaces the host name, which in a pod is the pod's own.
    """
    machine, hostname = platform.machine().lower(), representable(node or socket.gethostname()) or ""
    return Platform(os=platform.system().lower(), arch=_ARCH.get(machine, machine), hostname=hostname[:253] or None)


def this_hardware() -> Hardware:
    """Return processors and memory; `gpu_reader` reads GPUs."""
    return Hardware(cpus=os.cpu_count(), memory_mib=psutil.virtual_memory().total // _MIB)
