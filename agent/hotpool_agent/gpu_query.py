"""Print the machine's NVIDIA GPUs as one line of JSON: `{"gpus": [{"model": …, "memoryMiB": …}]}` or `{"error": …}`.

A program of its own, because a driver that hangs makes its process unkillable, and a driver that crashes ends it. Must
import nothing else of the agent.
"""

import json
import sys
from typing import Any


def main() -> None:
    """Print the GPUs, or why they cannot be read."""
    try:
        import pynvml  # noqa: PLC0415 - an extra
    except ImportError:
        _print({"error": "nvidia-ml-py is not installed: pip install 'hotpool[agent,nvidia]'"})
        return
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        _print({"gpus": [_gpu(pynvml, handle) for handle in handles]})
    except pynvml.NVMLError as error:
        _print({"error": f"NVML: {error}"})


def _gpu(nvml: Any, handle: Any) -> dict[str, Any]:
    name = nvml.nvmlDeviceGetName(handle)
    return {
        "model": name.decode(errors="replace") if isinstance(name, bytes) else name,
        "memoryMiB": nvml.nvmlDeviceGetMemoryInfo(handle).total // 2**20,
    }


def _print(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
