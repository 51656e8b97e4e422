"""Print the machine's AMD GPUs as one line of JSON: `{"gpus": [{"model": …, "memoryMiB": …}]}` or `{"error": …}`.

Arguments: the folder of sysfs, and the file of libdrm with names of models, which need not exist. A program of its own,
because a read of sysfs waits for the driver. Must import nothing else of the agent.
"""

import errno
import json
import sys
from pathlib import Path
from typing import Any, Final

_VENDOR: Final = "0x1002"


def main() -> None:
    """Print the GPUs, or why they cannot be read."""
    sysfs, names = map(Path, sys.argv[1:3])
    try:
        answer: dict[str, Any] = {"gpus": _gpus(sysfs, names)}
    except OSError as error:
        answer = {"error": f"{error.strerror}: {error.filename}"}
    sys.stdout.write(json.dumps(answer) + "\n")


def _gpus(sysfs: Path, names: Path) -> list[dict[str, Any]]:
    cards = [card for card in (sysfs / "class" / "drm").glob("card*") if card.name[4:].isdecimal()]
    devices = [card / "device" for card in sorted(cards, key=lambda card: int(card.name[4:]))]
    ours = [device for device in devices if _read(device / "vendor") == _VENDOR]
    return [gpu for device in ours if (gpu := _gpu(device, names)) is not None]


def _gpu(device: Path, names: Path) -> dict[str, Any] | None:
    """Return a GPU; None for one that is gone from the bus."""
    try:
        size = _read(device / "mem_info_vram_total")
        model = _read(device / "product_name") or _name(device, names)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return None
    # A pool that requires AMD depends on the word.
    branded = model if "amd" in model.lower() else f"AMD {model}".rstrip()
    return {"model": branded, "memoryMiB": int(size) // 2**20 if size.isdecimal() else None}


def _name(device: Path, names: Path) -> str:
    """Return the name that libdrm has for the device and its revision, else the device's PCI id."""
    ids = [_read(device / name).removeprefix("0x").upper() for name in ("device", "revision")]
    for line in _read(names).splitlines():
        fields = [field.strip() for field in line.split(",", 2)]
        if [field.upper() for field in fields[:2]] == ids and len(fields) > len(ids):
            return fields[2]
    return f"0x{ids[0].lower()}" if ids[0] else ""


def _read(path: Path) -> str:
    """Return the content; empty for a file that does not exist."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main()
