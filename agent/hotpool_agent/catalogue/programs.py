"""Programs of a catalogue that the agent could not run: looked up as it would. Reads the file system."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hotpool_agent.catalogue.model import Catalogue, ServiceSpec
from hotpool_agent.catalogue.problems import Problem
from hotpool_agent.untrusted_text import quoted

_SHOWN: Final = 300
"""Longest path in a message, in characters."""


def missing_programs(catalogue: Catalogue, base: Path) -> Iterator[Problem]:
    """Yield each command whose program does not exist or is not executable. `base`: the catalogue's folder."""
    for index, service in enumerate(catalogue.services):
        folder, env = base, dict(os.environ)
        if service.run:
            folder, env = base / service.run.working_dir, env | service.run.env
            if not folder.is_dir():
                yield Problem(
                    ("services", index, "run", "workingDir"), f"there is no folder {quoted(str(folder), _SHOWN)}"
                )
                continue
        for path, argv in _commands(service):
            if problem := program_problem(argv[0], folder, env):
                yield Problem((*path, "command"), problem).below("services", index)


def program_problem(program: str, folder: Path, env: Mapping[str, str]) -> str:
    """Return why a program cannot be run in a folder with these variables, or an empty text."""
    # As exec: a name with a slash is relative to the folder of the process, and so are relative folders of PATH.
    places = [folder / program] if "/" in program else [folder / place / program for place in os.get_exec_path(env)]
    # Path.is_file raises for a folder that may not be searched.
    files = [place for place in places if os.path.isfile(place)]  # noqa: PTH113
    if any(os.access(file, os.X_OK) for file in files):
        return ""
    if files:
        return f"cannot be run: {quoted(str(files[0]), _SHOWN)} is not executable"
    return (
        f"there is no program {quoted(str(places[0]), _SHOWN)}"
        if "/" in program
        else f"there is no program {quoted(program)} in PATH"
    )


def _commands(service: ServiceSpec) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield path and arguments of each command that the agent would run."""
    if service.run:
        yield ("run",), service.run.command
    named = {"observe": service.observe} if service.run is None else {"ready": service.ready, "live": service.live}
    for name, probe in named.items():
        if probe and probe.exec:
            yield (name, "exec"), probe.exec.command
