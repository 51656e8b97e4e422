"""Selection of kind and kubectl: an explicit choice, else kind if a Docker engine responds, else tools/kind.

Starts nothing but `docker info`.
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
    """Return the path of kind: `explicit`, else $HOTPOOL_KIND, else kind with a Docker engine, else tools/kind."""
    chosen = explicit or os.environ.get("HOTPOOL_KIND")
    if chosen:
        found = shutil.which(chosen)
        if not found:
            raise FileNotFoundError(f"{chosen}: no such program; choose another with HOTPOOL_KIND or --kind-bin")
        return Path(found)
    real = shutil.which("kind")
    return Path(real) if real and _docker_responds() else OURS


def _docker_responds() -> bool:
    """Return True if a Docker engine responds; a client alone is not enough."""
    docker = shutil.which("docker")
    if not docker:
        return False
    done = subprocess.run([docker, "info"], capture_output=True, timeout=20, check=False)
    return done.returncode == 0


@cache
def kubectl_program(kind: Path) -> Path:
    """Return the kubectl of the local cluster's version, built if it is missing; with real kind the one on PATH."""
    if kind != OURS:
        found = shutil.which("kubectl")
        if not found:
            raise FileNotFoundError("kubectl is not on PATH: install it, or choose HOTPOOL_KIND=tools/kind")
        return Path(found)
    built = subprocess.run([str(OURS), "build", "node-image"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(built.stdout.strip().splitlines()[-1]) / "kubectl"
