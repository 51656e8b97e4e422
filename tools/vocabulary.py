"""Find words and forms that the project's prose does not use: `python tools/vocabulary.py [PATH...]`.

Checks tracked text files, or those below the paths. Prints `file:line: form` for each finding, then a count. The exit
code is 1 if there is a finding. docs/glossary.md has the words to use instead.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_WORDS: Final = re.compile(
    r"\b(?:anew|hereby|heeds?|heeded|hearable|unheard|nobody|somebody|mend(?:s|ed|ing)?|deaf(?:ness)?|"
    r"for ever|how-manieth|forgives?|forgiven|(?:is|are|was|were|be|been) told|tells? of|told of|"
    r"puts? right|put right|stands? back|leans? on|what is none)\b",
    re.IGNORECASE,
)
_FIRST: Final = re.compile(r"(?:What|Whether|Who|Whose|Which|How|Where|When)\b(?! a )")
_CALLERS: Final = re.compile(r"\b(?:Called|Used|Owned|Opened|Started|Fed|Registered|Imported|Held) by `")
_CODE_IN_NAME: Final = re.compile(r"\bdef test_(?:[a-g]\d+_)+")
_TEXT: Final = {".py", ".md", ".yaml", ".yml", ".json", ".lua", ".tpl", ".txt", ".toml"}
_EXEMPT: Final = (
    "tools/vocabulary.py",
    "docs/requirements.md",
    "requirements.lock",
    "packaging/build.lock",
)

_OWNERS: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

Finding = tuple[str, int, str]
"""File, line, form."""


def _files(paths: list[str]) -> Iterator[Path]:
    command = ["git", "ls-files", "-z", "--", *paths]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and Path(name).suffix in _TEXT and not name.startswith(_EXEMPT) and Path(name).is_file():
            yield Path(name)


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, also of those below fields and constants."""
    for owner in ast.walk(ast.parse(source)):
        for statement in owner.body if isinstance(owner, _OWNERS) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


def findings(path: Path) -> Iterator[Finding]:
    """Yield the findings of one file."""
    source = path.read_text(encoding="utf-8")
    for number, line in enumerate(source.splitlines(), 1):
        for found in (*_WORDS.finditer(line), *_CODE_IN_NAME.finditer(line)):
            yield str(path), number, found[0]
    if path.suffix == ".py":
        for number, text in _docstrings(source):
            for pattern in (_FIRST.match, _CALLERS.search):
                if found := pattern(text):
                    yield str(path), number, f"docstring: {found[0]}"


def main() -> int:
    """Print all findings; return the exit code."""
    found = [finding for path in _files(sys.argv[1:]) for finding in findings(path)]
    for name, number, form in found:
        print(f"{name}:{number}: {form}")
    print(f"{len(found)} forms that docs/glossary.md replaces." if found else "No form that docs/glossary.md replaces.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
