"""Traps of the layout, and what must never be tracked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from localfleet.kind import REPOSITORY

ROOT = REPOSITORY

HOSTS = ("pypi" + ".org", "files.python" + "hosted.org", "proxy.golang" + ".org", "registry.npm" + "js.org")
MACHINE_PATH = re.compile("|".join(("/ho" + r"me/\w", "/Us" + r"ers/\w", "/ro" + "ot/", r"[A-Z]:\\Us" + "ers")))


def tracked() -> dict[Path, str]:
    """Every tracked text file with its content."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return {path: path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()}


def test_operator_is_a_source_root_and_never_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "tests" / "operator").exists()


def test_no_module_bears_a_name_of_the_standard_library_at_the_top() -> None:
    roots = [ROOT, ROOT / "operator", ROOT / "agent", ROOT / "tools", ROOT / "tests"]
    found = {
        item.stem
        for root in roots
        for item in root.iterdir()
        if item.suffix == ".py" or (item / "__init__.py").exists()
    }
    assert found
    assert not found & sys.stdlib_module_names


@pytest.mark.parametrize(
    "program",
    [
        ["-c", "import operator; print(operator.add(1, 2))"],
        ["-c", "import operator, pathlib; assert 'lib' in operator.__file__; print(3)"],
        ["-m", "json.tool", "--compact"],
    ],
)
def test_a_child_python_in_the_root_imports_the_standard_operator(program: list[str]) -> None:
    child = subprocess.run([sys.executable, *program], cwd=ROOT, input="3", capture_output=True, text=True, check=True)
    assert child.stdout == "3\n"


def test_no_tracked_file_names_a_registry() -> None:
    files = tracked()
    assert Path(__file__) in files
    assert [path for path, text in files.items() if any(host in text for host in HOSTS)] == []


def test_no_tracked_file_names_a_path_of_a_machine() -> None:
    here = f"{ROOT}/"
    wrong = [path for path, text in tracked().items() if here in text or MACHINE_PATH.search(text)]
    assert wrong == []
