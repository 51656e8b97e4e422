"""The Helm chart of this repository as objects, as `helm install` would send them.

The helm program: $HOTPOOL_HELM, else the one built beside the local cluster's programs.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from localfleet.kind import REPOSITORY, kind_program, kubectl_program

CHART: Final = REPOSITORY / "charts" / "hotpool"
ANY_CLUSTER: Final = "apiregistration.k8s.io/v1"
"""An API of every cluster that `helm template` does not list by itself."""


def helm_program() -> Path:
    """Return the path of helm. Raises FileNotFoundError."""
    chosen = os.environ.get("HOTPOOL_HELM")
    program = Path(chosen) if chosen else kubectl_program(kind_program()).with_name("helm")
    if not program.is_file():
        raise FileNotFoundError(f"{program}: no such program; build it with tools/kind build node-image")
    return program


def render(
    namespace: str,
    values: Mapping[str, Any] | None = None,
    *,
    only: str = "*",
    release: str = "hotpool",
    chart: Path = CHART,
    apis: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Render the chart with these values. `only`: a pattern below templates/. Raises RuntimeError.

    `chart`: another chart, such as one that depends on this one. `apis`: what the cluster serves beside Kubernetes.
    """
    command = [str(helm_program()), "template", release, str(chart), "--namespace", namespace, "--values", "-"]
    command += [word for api in apis for word in ("--api-versions", api)]
    if only != "*":
        command += ["--show-only", f"templates/{only}"]
    done = subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"helm template: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]
