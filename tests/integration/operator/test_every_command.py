"""Every command of both programs with any terminal, environment, kubeconfig and API server (requirement F5).

The commands are those of the command groups, so that a new one is included by itself.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import pytest
from tests.support.agent_process import spawn
from tests.support.agent_run import eventually
from tests.support.builders import condition, node_object, pool_object, report, requires, service
from tests.support.read_api import ReadApi, read_api

from hotpool.cli.program import app as operator_app
from hotpool.common import exit_codes
from hotpool.common.lazy_commands import LazyGroup
from hotpool_agent.cli.program import app as agent_app
from localfleet.kind import REPOSITORY
from localfleet.ports import free_port

GROUPS: Final[dict[str, LazyGroup]] = {"hotpool": operator_app, "hotpool_agent": agent_app}
RUNNERS: Final = 2
NAME: Final = "模型é🏆"
WORDS: Final = {
    "why": ["edge-1", "asr"],
    "diff": ["-f", "{pool}"],
    "pick": ["asr", "--redis", "{redis}"],
    "enroll": ["edge-1", "-o", "-"],
    "operator": ["--listen", "127.0.0.1:0"],
    "run": ["--catalogue", "{catalogue}", "--node", "n2"],
    "check": ["{catalogue}"],
    **{name: ["asr"] for name in ("start", "stop", "restart", "logs")},
}
"""Arguments with which a command does its work. Another command gets `x` for each required argument."""
STREAMS: Final[dict[str, dict[str, Any]]] = {
    "ascii": {"encoding": "ascii"},
    "latin-1": {"encoding": "latin-1"},
    "no home directory": {"homeless": True},
    "stdout closed": {"stdout": "closed"},
    "stdout without a reader": {"stdout": "broken"},
    "stderr closed": {"stderr": "closed"},
    "stderr without a reader": {"stderr": "broken"},
    "NO_COLOR": {"stdout": "terminal", "stderr": "terminal", "environment": {"NO_COLOR": "1", "TERM": "xterm"}},
    "TERM=dumb": {"stdout": "terminal", "stderr": "terminal", "environment": {"TERM": "dumb"}},
}
KUBECONFIGS: Final = {
    "a kubeconfig of text": b"just text",
    "a kubeconfig that ends early": b"clusters: [",
    "a kubeconfig of other types": b"apiVersion: v1\nkind: Config\nclusters: null\ncontexts: 7\ncurrent-context: x\n",
    "a list as kubeconfig": b"- a\n",
    "an empty kubeconfig": b"",
    "a binary kubeconfig": b"\x00\x01\xff\xfe",
}
_USAGE_LINES: Final = 5
"""Usage of up to two lines, a hint at --help, a blank line and the error."""


_COLOUR: Final = re.compile(r"\x1b\[([0-9]+;)*(3|4|9|10)[0-7]m")


@dataclass
class Case:
    """One run of a command."""

    program: str
    words: list[str]
    setting: str
    options: dict[str, Any]
    allowed: set[int]
    result: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.program} {' '.join(self.words)} [{self.setting}]: {self.result}"

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the result."""
        code, out, err = self.result["code"], self.result["out"], self.result["err"]
        lines = err.splitlines()
        if "Traceback" in out + err or "Exception ignored" in err or "Error in" in err:
            yield f"a traceback: {self}"
        if code not in self.allowed | ({exit_codes.BROKEN_PIPE} if self.options.get("stdout") == "broken" else set()):
            yield f"an undocumented exit code: {self}"
        if len(lines) > (_USAGE_LINES if err.startswith("Usage: ") else 1) and not self._is_long:
            yield f"more than one line of error: {self}"
        if (
            code
            and not (out + err)
            and not {"closed", "broken"} & {self.options.get("stdout"), self.options.get("stderr")}
        ):
            yield f"no error text: {self}"
        if _COLOUR.search(out + err) or ("\x1b" in out + err and self.setting != "NO_COLOR"):
            yield f"colours or control sequences: {self}"

    @property
    def _is_long(self) -> bool:
        """True for the log of a daemon, and for the help of a group."""
        return bool(self.options.get("terminate")) or not self.words


class Commands:
    """All commands, and the words that make each do its work."""

    def __init__(self, folder: Path, api: ReadApi) -> None:
        self.folder = folder
        self.kubeconfig = str(api.kubeconfig(folder))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "HOTPOOL_AGENT_STATE_DIR": str(folder / "state"),
            "HOTPOOL_AGENT_NODE": "n1",
            "HOTPOOL_AGENT_ANNOUNCE_SECONDS": "0.05",
            "HOTPOOL_AGENT_STOP_SECONDS": "0.5",
            "HOTPOOL_AGENT_LISTEN": "127.0.0.1:0",
            "HOTPOOL_AGENT_ADVERTISE": os.environ["HOTPOOL_AGENT_ADVERTISE"],
        }
        self.catalogue = folder / "node.yaml"
        self.catalogue.write_text(
            f"version: 1\nservices:\n- {{id: asr, type: asr, model: {NAME}, run: {{command: [echo, {NAME}]}}}}\n",
            encoding="utf-8",
        )
        pool = json.dumps(api.objects["nodepools"]["asr"] | {"apiVersion": "hotpool.dev/v1alpha1"})
        (folder / "pool.json").write_text(pool)
        self.paths = {
            "pool": folder / "pool.json",
            "redis": f"redis://127.0.0.1:{free_port()}",
            "catalogue": self.catalogue,
        }

    def each(self) -> Iterator[tuple[str, str, click.Command]]:
        """Yield program, name and command; the group itself with an empty name."""
        for program, group in GROUPS.items():
            yield program, "", group
            for name in group.table:
                yield program, name, group.load(name)

    def words(self, name: str, command: click.Command) -> list[str]:
        """Return the words with which a command does its work, except for the kubeconfig."""
        required = [p for p in command.params if isinstance(p, click.Argument) and p.required]
        given = [word.format(**self.paths) for word in WORDS.get(name, [])]
        return [name, *given, *(["x"] * (len(required) - len(given)))]

    def case(self, program: str, name: str, words: list[str], setting: str, **options: Any) -> Case:
        """Return a run of a command. Its exit codes are those of its help."""
        environment = self.environment | options.pop("environment", {})
        if options.get("homeless"):
            environment.pop("HOME")
        streams = {"stdout": "pipe", "stderr": "pipe"} | options | {"environment": environment}
        return Case(program, list(filter(None, words)), setting, streams, documented(program, name))

    def with_streams(self) -> Iterator[Case]:
        """Yield the work of each command with all kinds of streams, its help and a wrong use with those in question."""
        for setting, options in STREAMS.items():
            for program, name, command in self.each():
                if "stdout" in setting:
                    yield self.case(program, name, [name, "--help"], setting, **options)
                if "stderr" in setting:
                    yield self.case(program, name, [name, "--no-such-option"], setting, **options)
                if name:
                    # Operator and agent would not end by themselves: they do not find their kubeconfig.
                    path = str(self.folder / "none") if is_daemon(name) else self.kubeconfig
                    words = [*self.words(name, command), *(("--kubeconfig", path) if reads_cluster(command) else ())]
                    yield self.case(program, name, words, setting, **options)

    def with_clusters(self) -> Iterator[Case]:
        """Yield the work of each command of a cluster with every kind of kubeconfig, and without an API server."""
        unreachable = ReadApi()
        unreachable.url = f"http://127.0.0.1:{free_port()}"
        (self.folder / "away").mkdir()
        places = {
            "no kubeconfig": [],
            "a folder as kubeconfig": ["--kubeconfig", str(self.folder)],
            "a context that does not exist": ["--kubeconfig", self.kubeconfig, "--context", "nowhere"],
            "an API server that is away": ["--kubeconfig", str(unreachable.kubeconfig(self.folder / "away"))],
        }
        for number, (setting, content) in enumerate(KUBECONFIGS.items()):
            path = self.folder / f"kubeconfig-{number}"
            path.write_bytes(content)
            places[setting] = ["--kubeconfig", str(path)]
        for setting, words in places.items():
            for program, name, command in self.each():
                if reads_cluster(command):
                    waits = setting == "an API server that is away" and is_daemon(name)
                    line = [*self.words(name, command), *words]
                    yield self.case(program, name, line, setting, terminate=waits)

    def without_arguments(self) -> Iterator[Case]:
        """Yield each command alone."""
        for program, name, _ in self.each():
            yield self.case(program, name, [name], "no arguments")


def documented(program: str, name: str) -> set[int]:
    """Return the exit codes of the help of a command."""
    group = GROUPS[program]
    command = group.load(name) if name else group
    text = command.get_help(click.Context(command, info_name=name))
    codes = re.findall(r"^  (\d+) +\S", text.partition("Exit codes:")[2], re.MULTILINE)
    return {exit_codes.OK, exit_codes.USAGE, *map(int, codes)}


def reads_cluster(command: click.Command) -> bool:
    return any(parameter.name == "kubeconfig" for parameter in command.params)


def is_daemon(name: str) -> bool:
    return name in {"operator", "run"}


async def run_all(cases: list[Case]) -> None:
    """Run the cases and store their results."""
    waiting = iter(cases)
    async with asyncio.TaskGroup() as group:
        for _ in range(RUNNERS):
            group.create_task(_run(waiting))


async def _run(waiting: Iterator[Case]) -> None:
    pipe = asyncio.subprocess.PIPE
    words = (sys.executable, "-m", "tests.support.forked_commands")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    runner = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=environment, limit=1 << 20)
    assert runner.stdin
    assert runner.stdout
    for case in waiting:
        line = json.dumps({"words": [case.program, *case.words], **case.options})
        runner.stdin.write(line.encode() + b"\n")
        case.result = json.loads(await runner.stdout.readline())
    runner.stdin.close()
    assert await runner.wait() == 0


@asynccontextmanager
async def agent(commands: Commands) -> AsyncIterator[None]:
    """Run an agent that does not reach its API server, for the commands that ask one."""
    words = ["run", "--catalogue", str(commands.catalogue), "--kubeconfig", commands.kubeconfig]
    with (commands.folder / "agent.log").open("wb") as errors:
        process = await spawn(commands.environment, *words, errors=errors)
        try:
            await eventually((commands.folder / "state" / "n1" / "agent.sock").exists, seconds=60)
            yield
        finally:
            process.terminate()
            await process.wait()


@pytest.fixture
async def commands(tmp_path: Path) -> AsyncIterator[Commands]:
    async with read_api() as api:
        odd = [{**condition(), "message": NAME}]
        pool = pool_object("asr", requires=requires("asr")) | {"status": {"conditions": odd}}
        api.put(node_object("edge-1", report(service("whisper", "asr", lastError=NAME)), conditions=odd), pool)
        commands = Commands(tmp_path, api)
        async with agent(commands):
            yield commands


async def test_no_command_ends_with_a_traceback_an_undocumented_code_or_more_than_a_line_of_error(
    commands: Commands,
) -> None:
    cases = [*commands.without_arguments(), *commands.with_streams(), *commands.with_clusters()]
    await run_all(cases)
    problems = [problem for case in cases for problem in case.problems()]
    assert not problems, "\n".join(problems)
