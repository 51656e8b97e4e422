"""A pod for tests without a registry: its image holds one static program.

kubectl is a server (`proxy`), a client, and says who it is (`auth whoami`).
"""

from pathlib import Path
from typing import Any

from localkube import images

IMAGE = "localhost/kubectl:test"


def write_image(archive: Path, kubectl: Path) -> None:
    """Write the image's archive."""
    layer = archive.with_suffix(".layer")
    images.write_layer(layer, {"kubectl": kubectl})
    image = images.Image(IMAGE, ["/kubectl"], environment={"HOME": "/nowhere"})
    images.write_archive(archive, image, [layer])
    layer.unlink()


def pod(name: str, *words: str) -> dict[str, Any]:
    """A pod that `restricted` admits: kubectl with these words, until it succeeds."""
    secure = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "args": list(words)}
    resources = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "OnFailure",
            "containers": [{**container, "securityContext": secure, "resources": resources}],
        },
    }
