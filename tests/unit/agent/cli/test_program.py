"""The table of commands that `hotpool-agent --help` prints, against the commands themselves (requirement F5)."""

from importlib import import_module
from typing import Any

import pytest
from typer.main import get_command, get_group

from hotpool_agent.cli.program import COMMANDS, app


@pytest.mark.parametrize("name", COMMANDS)
def test_the_program_lists_a_command_by_the_first_sentence_of_its_own_help(name: str) -> None:
    # Long enough that nothing is cut off.
    program: Any = get_command(app)
    assert program.load(name).get_short_help_str(limit=1000) == COMMANDS[name][1]


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS.values()}))
def test_every_command_of_a_module_is_in_the_table(module: str) -> None:
    found = get_group(import_module(f"hotpool_agent.cli.{module}").app).commands
    assert set(found) == {name for name, (where, _) in COMMANDS.items() if where == module}
