"""Print the machine's NVIDIA GPUs as one line of JSON: `{"gpus": [{"model": …, "memoryMiB": …}]}` or `{"error": …}`.

A program of its own, because a driver that hangs makes its process unkillable, and a driver that crashes ends it. Must
import nothing else of the agent.
"""

import json
import sys
from typing import Any, Final

_GPU_IS_LOST: Final = 15
"""NVML_ERROR_GPU_IS_LOST: the GPU fell off the bus."""


def main() -> None:
    """Print the GPUs, or why they cannot be read."""
    try:
        import pynvml  # noqa: PLC0415 - an extra
    except ImportError:
        _print({"error": "nvidia-ml-py is not installed: pip install 'hotpool[agent,nvidia]'"})
        return
    try:
        pynvml.nvmlInit()
        found = (_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
        _print({"gpus": [gpu for gpu in found if gpu]})
    except pynvml.NVMLError as error:
        _print({"error": f"NVML: {error}"})


def _gpu(nvml: Any, index: int) -> dict[str, Any] | None:
    """Return a GPU; None for one that is lost."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name, memory = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        if getattr(error, "value", None) != _GPU_IS_LOST:
            raise
        return None
    return {
        "model": name.decode(errors="replace") if isinstance(name, bytes) else name,
        "memoryMiB": memory.total // 2**20,
    }


def _print(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
