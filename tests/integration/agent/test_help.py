"""`--help` of every command of the real program (requirement F5)."""

import re
from typing import Final

import pytest
from tests.support.agent_process import Command

from hotpool_agent import __version__
from hotpool_agent.settings import Settings

COMMANDS: Final = ("run", "start", "stop", "restart", "reload", "drain", "undrain", "status", "report", "logs", "check")
WIDTH: Final = 80


def sections(text: str) -> dict[str, list[str]]:
    """Return title → lines of the indented sections."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            title = line.removesuffix(":")
        elif line:
            found.setdefault(title, []).append(line)
    return found


async def test_the_program_lists_its_commands_and_exit_codes(hotpool_agent: Command) -> None:
    result = await hotpool_agent("--help")
    assert result.code == 0
    page = sections(result.out)
    assert {line.split()[0] for line in page["Commands"]} == set(COMMANDS)
    # The first sentence of no command is cut off.
    assert [line for line in page["Commands"] if not line.endswith(".") or line.endswith("...")] == []
    assert [line.split()[0] for line in page["Exit codes"]] == ["0", "1", "2", "3", "4", "5"]
    assert {"Environment", "Files", "Examples"} <= set(page)


@pytest.mark.parametrize("command", COMMANDS)
async def test_help_is_a_manual_page_of_80_columns(hotpool_agent: Command, command: str) -> None:
    result = await hotpool_agent(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert max(map(len, result.out.splitlines())) <= WIDTH
    assert "\x1b" not in result.out
    page = sections(result.out)
    assert any(f"hotpool-agent {command} " in line + " " for line in page["Examples"])
    codes = [match[1] for line in page["Exit codes"] if (match := re.match(r"  (\d+) +\S", line))]
    assert codes[0] == "0"
    assert "2" in codes


async def test_help_of_run_names_every_setting_of_the_environment(hotpool_agent: Command) -> None:
    page = sections((await hotpool_agent("run", "--help")).out)
    named = {line.split()[0] for line in page["Environment"]}
    assert {f"HOTPOOL_AGENT_{name.upper()}" for name in Settings.model_fields} <= named


async def test_status_lists_the_codes_for_no_connection_and_for_no_agent(hotpool_agent: Command) -> None:
    page = sections((await hotpool_agent("status", "--help")).out)
    codes = {line.split()[0]: line for line in page["Exit codes"]}
    assert "not connected" in codes["4"]
    assert "no agent" in codes["3"]


async def test_the_program_prints_its_version(hotpool_agent: Command) -> None:
    result = await hotpool_agent("--version")
    assert (result.code, result.out, result.err) == (0, f"hotpool-agent {__version__}\n", "")
