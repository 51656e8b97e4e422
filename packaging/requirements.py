"""Print what the named extras of pyproject.toml need, one requirement a line: `python requirements.py agent operator`.

For the image: pip checks hashes only of what is named, and cannot check those of a project in a folder.
"""

import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, list[str]], extras: list[str]) -> set[str]:
    """Requirements of the project and of the extras; `hotpool[other]` stands for those of another extra."""
    found = set(project["dependencies"])
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            own = line.startswith(f"{project['name']}[")
            found |= requirements(project, line.partition("[")[2].rstrip("]").split(",")) if own else {line}
    return found


if __name__ == "__main__":
    said = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    print("\n".join(sorted(requirements(said["project"], sys.argv[1:]))))
