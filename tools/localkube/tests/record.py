"""The record of the last complete green run of the tool's tests: a digest over the files of the tool.

As a program, exit with 0 if the record fits the files, so that CI can leave out the tests of an unchanged tool. Must
not import anything but the standard library.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
RECORD = "tools/localkube/tests.green"
_TOOL = ("tools/localkube", "tools/kind")


def digest(repository: Path) -> str:
    """Return a digest over names and contents of the tool's files.

    Files that git does not track yet count as well, because they take part in a run; ignored files do not.
    """
    command = ["/usr/bin/env", "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_TOOL]
    listed = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout
    files = {name: repository / name for name in listed.split("\0") if name and name != RECORD}
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {name}\n"
        for name, path in sorted(files.items())
        if path.is_file()
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_current(repository: Path) -> bool:
    """Return True if the recorded run had the files of now."""
    file = repository / RECORD
    return file.is_file() and file.read_text().strip() == digest(repository)


def write(repository: Path, value: str) -> None:
    """Record a run on the files of this digest."""
    (repository / RECORD).write_text(f"{value}\n")


if __name__ == "__main__":
    sys.exit(not is_current(REPOSITORY))
