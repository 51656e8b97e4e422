"""Options of every command, as kubectl has them (requirement F5), and exits with an error."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeVar

import click

from hotpool.common.cli_help import EnumChoice

F = TypeVar("F", bound=Callable[..., Any])


class OutputFormat(StrEnum):
    """Output format of a command."""

    TEXT = "text"
    JSON = "json"


_FLEET_OPTIONS: Final = (
    click.option("--namespace", "-n", help="The fleet. Default: the namespace of the kubeconfig's context."),
    click.option("--context", help="Context within the kubeconfig."),
    click.option("--kubeconfig", help="Path. Default: $KUBECONFIG, as kubectl."),
)
output_option: Final = click.option(
    "--output",
    "-o",
    type=EnumChoice(OutputFormat),
    default=OutputFormat.TEXT,
    help="For people (text, the default) or programs (json).",
)


def fleet_options(function: F) -> F:
    """Add `namespace`, `context` and `kubeconfig` to a command."""
    for option in reversed(_FLEET_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Connection options of a command, with the namespace of the fleet."""

    namespace: str
    kubeconfig: str | None
    context: str | None

    @classmethod
    def of(cls, namespace: str | None, kubeconfig: str | None, context: str | None) -> "FleetOptions":
        """Return the options; a missing namespace is that of the kubeconfig's context, else `default`."""
        if not namespace:
            from hotpool.kube.client import namespace_of

            namespace = namespace_of(kubeconfig, context)
        return cls(namespace or "default", kubeconfig, context)


class CommandError(Exception):
    """Error that ends the command with a message and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def fail(command: str, message: str, code: int) -> NoReturn:
    """End a command with a message on standard error."""
    click.echo(f"hotpool {command}: {message}", err=True)
    sys.exit(code)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2))
