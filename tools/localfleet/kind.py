"""Which kind and kubectl to use: an explicit choice, else kind where a Docker engine answers, else tools/kind.

It starts nothing but `docker info`.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
OURS: Final = REPOSITORY / "tools" / "kind"


def kind_program(explicit: str | None = None) -> Path:
    """The kind to call: `explicit`, else $HOTPOOL_KIND, else kind with a Docker engine, else our own."""
    chosen = explicit or os.environ.get("HOTPOOL_KIND")
    if chosen:
        found = shutil.which(chosen)
        if not found:
            raise FileNotFoundError(f"{chosen}: no such program; choose another with HOTPOOL_KIND or --kind-bin")
        return Path(found)
    real = shutil.which("kind")
    return Path(real) if real and _docker_answers() else OURS


def _docker_answers() -> bool:
    """A client alone is no engine: ask the engine."""
    docker = shutil.which("docker")
    if not docker:
        return False
    asked = subprocess.run([docker, "info"], capture_output=True, timeout=20, check=False)
    return asked.returncode == 0


@cache
def kubectl_program(kind: Path) -> Path:
    """The kubectl of our own cluster's version, built where it is missing; with real kind the one on PATH."""
    if kind != OURS:
        found = shutil.which("kubectl")
        if not found:
            raise FileNotFoundError("kubectl is not on PATH: install it, or choose HOTPOOL_KIND=tools/kind")
        return Path(found)
    built = subprocess.run([str(OURS), "build", "node-image"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(built.stdout.strip().splitlines()[-1]) / "kubectl"
