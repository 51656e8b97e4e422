"""Output of kubectl, compared with docs/how-to/kubectl.md (requirement F1)."""

import re
import shlex
from collections.abc import Iterator

import pytest
from tests.support.simulated_agents import SimulatedAgents

from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY
from localfleet.process import wait_for

PAGE = REPOSITORY / "docs" / "how-to" / "kubectl.md"
REPLACEMENTS = [
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"(Resource Version|Generation|Observed Generation):\s+\d+"), r"\1: NUMBER"),
    (re.compile(r"Namespace:\s+\S+"), "Namespace: FLEET"),
    (re.compile(r"(?<=\s)(\d+m)?\d+s(?=\s|$)"), "AGE"),
    (re.compile(r"[ \t]+"), " "),
]
"""Parts of the output that differ between runs: times, ages, ids, and column widths."""


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Return each command of the page with its output."""
    text = "".join(blocks("console"))
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in text.split("$ kubectl ")[1:]]


def normalized(text: str) -> str:
    for pattern, replacement in REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return "\n".join(line.strip() for line in text.split("\nEvents:")[0].strip().splitlines())


@pytest.fixture
def page_fleet(fleet: Fleet) -> Iterator[Fleet]:
    """Start the fleet of the page, and wait until it is stable."""
    with SimulatedAgents(fleet.admin, fleet.namespace, interval=15) as agents:
        fleet.kubectl("apply", "-f", "-", text=blocks("yaml")[0])
        agents.create(["edge-1"], ["asr", "llm"])
        agents.create(["edge-2"], ["llm"])
        agents.create(["edge-3"], ["asr", "llm"])
        agents.report("edge-3", asr=False, llm=False)
        fleet.start_operator()
        fleet.wait_leading()
        wait_for("the members are listed", lambda: set(fleet.members("llm")) == {"edge-1", "edge-2"})
        for name, reason in (("llm", "EnoughMembers"), ("asr", "TooFewMembers"), ("tts-trial", "DryRun")):
            path = '{.status.conditions[?(@.type=="Ready")].reason}'
            fleet.kubectl("wait", f"nodepool/{name}", f"--for=jsonpath={path}={reason}", "--timeout=30s")
        fleet.kubectl("wait", "nodepool/asr", "--for=jsonpath={.status.excluded[0].count}=2", "--timeout=30s")
        fleet.kubectl("wait", "nodecapability", "--all", "--for=jsonpath={.status.ready}=True", "--timeout=30s")
        yield fleet


def test_every_command_prints_the_output_on_the_page(page_fleet: Fleet) -> None:
    commands = examples()
    assert len(commands) > 10
    for command, expected in commands:
        assert normalized(page_fleet.kubectl(*shlex.split(command))) == normalized(expected), command
