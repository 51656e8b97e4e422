"""Command group `hotpool`. The module of a command is imported when the command runs: all together take 2 s."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import typer

from hotpool import __version__
from hotpool.common.lazy_commands import LazyGroup, add_version_option

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "operator": ("run", "Run the operator of one namespace until SIGTERM."),
    "why": ("why", "Explain why a node is in a pool or not, and what would change it."),
    "top": ("top", "Show an overview of nodes and pools."),
    "diff": ("diff", "Show the nodes that would join and leave pools if manifests were applied."),
    "pick": ("pick", "Pick a node of a pool, as a dispatcher does."),
    "enroll": ("enroll", "Create an account and a kubeconfig for the agent of a node outside the cluster."),
}
"""Command → module in `hotpool.cli`, and the first paragraph of the command's help."""


class _Program(LazyGroup):
    """Group of all commands."""

    table = COMMANDS

    @staticmethod
    def load(name: str) -> Any:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        import_module(f"hotpool.cli.{COMMANDS[name][0]}").register(single)
        return typer.main.get_command(single)


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Keep every node in exactly the pools whose requirements it meets now.",
)
add_version_option(app, f"hotpool {__version__}")
