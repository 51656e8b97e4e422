"""Table of commands in `hotpool-agent --help`, compared with the commands (requirement F5)."""

from importlib import import_module

import click
import pytest

from hotpool_agent.cli.program import app


@pytest.mark.parametrize("name", app.table)
def test_the_program_lists_the_first_sentence_of_the_help_of_a_command(name: str) -> None:
    command = app.load(name)
    assert (command.name, command.get_short_help_str(limit=1000)) == (name, app.table[name][1])


@pytest.mark.parametrize("module", sorted({module for module, _ in app.table.values()}))
def test_every_command_of_a_module_is_in_the_table(module: str) -> None:
    commands = {name for name, value in vars(import_module(module)).items() if isinstance(value, click.Command)}
    assert commands == {name for name, (origin, _) in app.table.items() if origin == module}
