"""Read and write image archives without a registry and without an engine: OCI layouts in a tar file.

Must not run anything.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_OCI = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """Description of an image beside its layers; ``name`` is complete, such as ``localhost/pause:1``."""

    name: str
    entrypoint: Sequence[str]
    user: str = "65532:65532"
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"


def write_archive(target: Path, image: Image, layers: Iterable[Path]) -> None:
    """Write the archive of an image whose layers are tar files, the lowest first."""
    stacked = [(path, _blob(f"{_OCI}.layer.v1.tar", path)) for path in layers]
    config = _encoded(_config(image, [blob["digest"] for _, blob in stacked]))
    config_blob = _blob(f"{_OCI}.config.v1+json", config)
    manifest = _encoded(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": config_blob,
            "layers": [blob for _, blob in stacked],
        }
    )
    entry = {
        **_blob(f"{_OCI}.manifest.v1+json", manifest),
        "platform": _platform(),
        "annotations": {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name},
    }
    index = _encoded({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [entry]})
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", _encoded({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", index)
        contents: list[bytes | Path] = [config, manifest, *(path for path, _ in stacked)]
        for blob, content in zip((config_blob, entry, *(blob for _, blob in stacked)), contents, strict=True):
            _add(archive, f"blobs/{blob['digest'].replace(':', '/')}", content)


def write_layer(target: Path, files: Mapping[str, Path]) -> None:
    """Write a layer that holds programs: what is at the path, under each name, owned by root, executable by all."""
    with tarfile.open(target, "w") as layer:
        for name, path in files.items():
            _add(layer, name.lstrip("/"), path, mode=0o755)


def _config(image: Image, layers: Sequence[str]) -> dict[str, Any]:
    return {
        **_platform(),
        "config": {
            "Entrypoint": list(image.entrypoint),
            "User": image.user,
            "Env": [f"{name}={value}" for name, value in image.environment.items()],
            "Labels": dict(image.labels),
            "WorkingDir": image.folder,
        },
        "rootfs": {"type": "layers", "diff_ids": list(layers)},
    }


def _platform() -> dict[str, str]:
    machine = platform.machine()
    return {"architecture": _ARCHITECTURES.get(machine, machine), "os": "linux"}


def _blob(media_type: str, content: bytes | Path) -> dict[str, Any]:
    """The descriptor of a blob."""
    if isinstance(content, bytes):
        digest, size = hashlib.sha256(content).hexdigest(), len(content)
    else:
        with content.open("rb") as file:
            digest, size = hashlib.file_digest(file, "sha256").hexdigest(), content.stat().st_size
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path, mode: int = 0o644) -> None:
    """Add a file without a time or an owner, so that the same content gives the same archive."""
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if isinstance(content, bytes):
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    else:
        entry.size = content.stat().st_size
        with content.open("rb") as file:
            archive.addfile(entry, file)


def _encoded(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
