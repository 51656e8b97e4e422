"""Names that could shadow the standard library, cited requirements, and text that must never be tracked."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from localfleet.kind import REPOSITORY

ROOT = REPOSITORY
SOURCE_ROOTS = ("operator", "agent", "tools")
"""Folders on the import path, below which each part of a path is a part of a module's name."""

HOSTS = ("pypi" + ".org", "files.python" + "hosted.org", "proxy.golang" + ".org", "registry.npm" + "js.org")
MACHINE_PATH = re.compile("|".join(("/ho" + r"me/\w", "/Us" + r"ers/\w", "/ro" + "ot/", r"[A-Z]:\\Us" + "ers")))
CODE = re.compile(r"\b[A-G]\d{1,2}\b")
CODES = rf"{CODE.pattern}(?:(?:,|\s+and|\s+to)[\s#]+{CODE.pattern})*"
CITATION = re.compile(rf"\b[Rr]equirements?\s+({CODES})|\(({CODES})\)")
"""A list of codes after the word "requirement", or alone in brackets; a comment may continue it on its next line."""


def tracked() -> dict[Path, str]:
    """Return every tracked text file with its content."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return {path: path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()}


def source_modules() -> Iterator[tuple[str, ...]]:
    """Yield the parts of the name of each module below the source roots."""
    for root in SOURCE_ROOTS:
        for path in sorted((ROOT / root).rglob("*.py")):
            yield path.relative_to(ROOT / root).with_suffix("").parts


def cited_codes(text: str) -> set[str]:
    """Return the codes of requirements that a text cites."""
    return {code for found in CITATION.finditer(text) for code in CODE.findall(found[1] or found[2])}


def test_operator_is_a_source_root_and_never_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "tests" / "operator").exists()


def test_folders_of_tests_cannot_shadow_a_module() -> None:
    """A folder such as tests/unit/operator is no package, and pytest puts no folder of tests on the import path."""
    assert (ROOT / "tests" / "unit" / "operator").is_dir()
    assert [*(ROOT / "tests").rglob("__init__.py")] == []
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert "--import-mode=importlib" in options["addopts"].split()
    assert options["pythonpath"] == [".", "tools"]
    assert [path for path in sys.path if path and Path(path).is_relative_to(ROOT / "tests")] == []


def test_no_module_at_the_top_has_the_name_of_a_standard_library_module() -> None:
    roots = [ROOT, *(ROOT / root for root in SOURCE_ROOTS), ROOT / "tests"]
    found = {
        item.stem
        for root in roots
        for item in root.iterdir()
        if item.suffix == ".py" or (item / "__init__.py").exists()
    }
    assert found
    assert not found & sys.stdlib_module_names


def test_no_part_of_a_modules_name_is_that_of_a_standard_library_module() -> None:
    modules = list(source_modules())
    assert ("hotpool", "lookup") in modules
    assert ("hotpool_agent", "app") in modules
    assert [".".join(parts) for parts in modules if sys.stdlib_module_names & {*parts}] == []


@pytest.mark.parametrize(
    "program",
    [
        ["-c", "import operator; print(operator.add(1, 2))"],
        ["-c", "import operator, pathlib; assert 'lib' in operator.__file__; print(3)"],
        ["-m", "json.tool", "--compact"],
    ],
)
@pytest.mark.parametrize("folder", [".", "tests", "tests/unit"])
def test_a_child_python_imports_the_standard_operator(program: list[str], folder: str) -> None:
    command = [sys.executable, *program]
    child = subprocess.run(command, cwd=ROOT / folder, input="3", capture_output=True, text=True, check=True)
    assert child.stdout == "3\n"


def test_every_cited_requirement_exists() -> None:
    page = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")
    known = {code.upper() for code in re.findall(r'<a id="([a-g]\d{1,2})"></a>', page)}
    cited = {path.relative_to(ROOT): cited_codes(text) for path, text in tracked().items()}
    assert len(set().union(*cited.values())) > 40
    unknown = {f"{path}: {code}" for path, codes in cited.items() for code in codes - known}
    assert sorted(unknown) == []


def test_no_tracked_file_names_a_registry() -> None:
    files = tracked()
    assert Path(__file__) in files
    assert [path for path, text in files.items() if any(host in text for host in HOSTS)] == []


def test_no_tracked_file_names_a_path_of_a_machine() -> None:
    here = f"{ROOT}/"
    found = [path for path, text in tracked().items() if here in text or MACHINE_PATH.search(text)]
    assert found == []
