"""A file to `source` in another terminal: after it, the commands of the demo are short."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

NAME: Final = "env"
COMMANDS: Final = (
    "kubectl get nodepools",
    "hotpool top",
    "hotpool why edge-3 zh-en",
    "hotpool-agent stop piper --node edge-1",
    "hotpool-agent start piper --node edge-1",
    "hotpool exclude zh-en edge-2",
    "curl http://$(hotpool pick zh-en --endpoint tts)/health",
    "hotpool enroll edge-7 -o $DEMO/edge-7.kubeconfig",
)
"""Commands to try; none needs an option for the namespace, the cluster or Redis."""


def write_environment(folder: Path, programs: list[Path], variables: Mapping[str, str]) -> Path:
    """Write the file into the demo's folder, and return its path. `programs`: folders for PATH, the first one first."""
    path = folder / NAME
    places = os.pathsep.join(map(str, dict.fromkeys(programs)))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in {"DEMO": str(folder), **variables}.items()]
    path.write_text("\n".join([*lines, f"export PATH={shlex.quote(places)}:$PATH", ""]))
    return path
