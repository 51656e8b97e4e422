"""Imports of the programs: a quick command must not load modules that it does not use."""

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.builders import node_object, pool_object, report, requires, service
from tests.support.read_api import read_api

import hotpool
from hotpool.cli.program import app

MODULES: Final = """
import sys
from hotpool.__main__ import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
CLIENT: Final = ("kubernetes.client", "kubernetes.config", "kubernetes.aio.client", "kubernetes.aio.config", "aiohttp")
SLOW: Final = (*CLIENT, "kopf", "pydantic", "redis", "rich", "structlog", "yaml")
GENERATED: Final = (
    "kubernetes.client",
    "kubernetes.config",
    "kubernetes.aio.client.api.",
    "kubernetes.aio.client.models.",
)
SYNCHRONOUS: Final = ("requests", "oauthlib", "websocket")


async def python(*words: str) -> tuple[int | None, str, str]:
    """Run a child; return exit code, standard output and standard error."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    return child.returncode, out.decode(), err.decode()


async def imported(*words: str) -> set[str]:
    """Return the modules that a run of `hotpool` imports."""
    code, out, err = await python("-c", MODULES, *words)
    assert (code, bool(out)) == (0, True), err
    return set(err.splitlines()[-1].split())


def found(modules: set[str], names: tuple[str, ...]) -> list[str]:
    """Return the modules that are, or are within, one of the names; a name that ends with a dot is a prefix."""
    return sorted(m for m in modules if any(m == name or m.startswith(f"{name.rstrip('.')}.") for name in names))


@pytest.mark.parametrize("word", ["--version", "--help"])
async def test_version_and_help_import_no_command_and_no_slow_module(word: str) -> None:
    modules = await imported(word)
    own = ["hotpool.cli", "hotpool.cli.program"]
    assert found(modules, (*SLOW, "hotpool.cli", "hotpool.api", "hotpool.core")) == own


@pytest.mark.parametrize("name", app.table)
def test_the_list_of_commands_has_the_first_paragraph_of_each_commands_help(name: str) -> None:
    command = app.load(name)
    assert (command.name, " ".join((command.help or "").partition("\n\n")[0].split())) == (name, app.table[name][1])


@pytest.mark.parametrize("name", sorted(app.table.keys() - {"operator"}))
async def test_a_command_starts_without_the_generated_and_the_synchronous_client(name: str) -> None:
    modules = await imported(name, "--help")
    assert f"hotpool.cli.{name}" in modules
    assert found(modules, (*GENERATED, *SYNCHRONOUS, "kopf", "rich")) == []
    assert ("redis" in modules) == (name == "pick")


@pytest.mark.parametrize("name", app.table)
async def test_help_and_completion_of_a_command_import_no_slow_module(name: str) -> None:
    own = {"redis"} if name == "pick" else set()
    assert {module.partition(".")[0] for module in found(await imported(name, "--help"), SLOW)} == own


async def test_the_shell_completes_commands_and_options() -> None:
    for words, expected in (
        ("hotpool st", {"status", "start", "stop"}),
        ("hotpool why --n", {"--node", "--namespace"}),
    ):
        number = len(words.split()) - 1
        variables = f"_HOTPOOL_COMPLETE='bash_complete', COMP_WORDS={words!r}, COMP_CWORD='{number}'"
        prefix = f"import os, sys; os.environ.update({variables}); sys.argv = ['hotpool']"
        code, out, err = await python("-c", f"{prefix}\n{MODULES}")
        assert code == 0, err
        assert {line.partition(",")[2] for line in out.split()} == expected


async def test_pick_needs_neither_the_kubernetes_client_nor_the_models_of_the_api() -> None:
    assert found(await imported("pick", "--help"), (*CLIENT, "hotpool.api")) == []


async def test_why_and_top_need_neither_the_generated_client_nor_redis(tmp_path: Path) -> None:
    async with read_api() as api:
        api.put(node_object("edge-1", report(service("q", "llm"))), pool_object("llm", requires=requires("llm")))
        options = ("--kubeconfig", str(api.kubeconfig(tmp_path)))
        for words in (("why", "edge-1", "llm"), ("top",), ("events", "llm")):
            assert found(await imported(*words, *options), (*GENERATED, *SYNCHRONOUS, "redis", "kopf")) == []
        assert found(await imported("why", "edge-1", "llm", "-o", "json", *options), ("rich",)) == []


def importers() -> Iterator[str]:
    """Yield the modules of hotpool that import kubernetes, and the public library."""
    root = Path(next(iter(hotpool.__path__)))
    for path in sorted(root.rglob("*.py")):
        if re.search(r"^(from|import) kubernetes", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield ".".join(["hotpool", *path.relative_to(root).with_suffix("").parts])
    yield "hotpool.lookup"


@pytest.mark.parametrize("module", tuple(importers()))
async def test_a_program_that_imports_hotpool_can_use_the_whole_kubernetes_client(module: str) -> None:
    code, _, err = await python("-c", f"import {module}, kubernetes; kubernetes.client.CoreV1Api")
    assert code == 0, err
