"""What docs/how-to/kubectl.md shows is what kubectl prints (requirement F1)."""

import re
import shlex
from collections.abc import Iterator

import pytest
from tests.support.simulated_agents import Puppets

from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY
from localfleet.process import wait_for

PAGE = REPOSITORY / "docs" / "how-to" / "kubectl.md"
OWN_TIMES = [
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"(Resource Version|Generation|Observed Generation):\s+\d+"), r"\1: NUMBER"),
    (re.compile(r"Namespace:\s+\S+"), "Namespace: FLEET"),
    (re.compile(r"(?<=\s)(\d+m)?\d+s(?=\s|$)"), "AGE"),
    (re.compile(r"[ \t]+"), " "),
]
"""What differs from run to run: times, ages, ids, and the widths that follow from them."""


def blocks(language: str) -> list[str]:
    """The page's blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Each command of the page, and what the page says it prints."""
    text = "".join(blocks("console"))
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in text.split("$ kubectl ")[1:]]


def steady(text: str) -> str:
    for pattern, word in OWN_TIMES:
        text = pattern.sub(word, text)
    return "\n".join(line.strip() for line in text.split("\nEvents:")[0].strip().splitlines())


@pytest.fixture
def shown(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet of the page, settled."""
    with Puppets(fleet.admin, fleet.namespace, interval=15) as puppets:
        fleet.kubectl("apply", "-f", "-", text=blocks("yaml")[0])
        puppets.create(["edge-1"], ["asr", "llm"])
        puppets.create(["edge-2"], ["llm"])
        puppets.create(["edge-3"], ["asr", "llm"])
        puppets.report("edge-3", asr=False, llm=False)
        fleet.start_operator()
        fleet.wait_leading()
        wait_for("settled", lambda: set(fleet.members("llm")) == {"edge-1", "edge-2"})
        for name, word in (("llm", "EnoughMembers"), ("asr", "TooFewMembers"), ("tts-trial", "DryRun")):
            path = '{.status.conditions[?(@.type=="Ready")].reason}'
            fleet.kubectl("wait", f"nodepool/{name}", f"--for=jsonpath={path}={word}", "--timeout=30s")
        fleet.kubectl("wait", "nodepool/asr", "--for=jsonpath={.status.excluded[0].count}=2", "--timeout=30s")
        fleet.kubectl("wait", "nodecapability", "--all", "--for=jsonpath={.status.ready}=True", "--timeout=30s")
        yield fleet


def test_every_command_of_the_page_prints_what_the_page_shows(shown: Fleet) -> None:
    commands = examples()
    assert len(commands) > 10
    for command, expected in commands:
        assert steady(shown.kubectl(*shlex.split(command))) == steady(expected), command
