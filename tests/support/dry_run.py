"""Manifests checked by the API server without storing them."""

import json
import subprocess
from typing import Any


def dry_run(kind_cluster: Any, documents: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Apply objects as a dry run; return the result of kubectl."""
    command = [kind_cluster.kubectl_path, "--kubeconfig", kind_cluster.kubeconfig_path]
    command += ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    return subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False)
