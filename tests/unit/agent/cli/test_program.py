"""Table of commands in `hotpool-agent --help`, compared with the commands (requirement F5)."""

from importlib import import_module
from typing import Any

import pytest
from typer.main import get_command, get_group

from hotpool_agent.cli.program import COMMANDS, app


@pytest.mark.parametrize("name", COMMANDS)
def test_the_program_lists_the_first_sentence_of_the_help_of_a_command(name: str) -> None:
    program: Any = get_command(app)
    assert program.load(name).get_short_help_str(limit=1000) == COMMANDS[name][1]


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS.values()}))
def test_every_command_of_a_module_is_in_the_table(module: str) -> None:
    commands = get_group(import_module(f"hotpool_agent.cli.{module}").app).commands
    assert set(commands) == {name for name, (origin, _) in COMMANDS.items() if origin == module}
