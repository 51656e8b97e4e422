"""Read an image's archive, in the format of `docker save`: configuration, and files as a container sees them.

Must not run anything.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def manifest(archive: Path) -> dict[str, Any]:
    """Return the entry of the archive's only image: Config, RepoTags, Layers."""
    with tarfile.open(archive) as tar:
        (entry,) = json.loads(_content(tar, "manifest.json"))
    return dict(entry)


def config(archive: Path) -> dict[str, Any]:
    """Return the image's configuration, with `config`, `rootfs` and `history`."""
    with tarfile.open(archive) as tar:
        return dict(json.loads(_content(tar, manifest(archive)["Config"])))


@contextmanager
def layer(archive: Path, name: str) -> Iterator[tarfile.TarFile]:
    """Open one of the manifest's Layers for reading."""
    with tarfile.open(archive) as tar, tarfile.open(fileobj=tar.extractfile(name)) as inner:
        yield inner


def read(archive: Path, path: str) -> bytes:
    """Return a file of the topmost layer that has it; `path` without a leading slash. Raises FileNotFoundError."""
    for name in reversed(manifest(archive)["Layers"]):
        with layer(archive, name) as tar:
            if path in tar.getnames():
                return _content(tar, path)
    raise FileNotFoundError(path)


def unpack(archive: Path, folder: Path, *, above: int = 0) -> None:
    """Extract the layers in order, without the lowest `above`. Keeps owners and modes, so it needs root."""
    for name in manifest(archive)["Layers"][above:]:
        with layer(archive, name) as tar:
            tar.extractall(folder, numeric_owner=True, filter="fully_trusted")  # noqa: S202 - we built it.


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    with tar.extractfile(name) or io.BytesIO() as file:
        return file.read()
