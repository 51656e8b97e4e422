"""Options of every command, as kubectl has them (requirement F5), and exits with an error."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer

NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", "-n", help="The fleet. Default: the namespace of the kubeconfig's context.")
]
ContextOption = Annotated[str | None, typer.Option("--context", help="Context within the kubeconfig.")]
KubeconfigOption = Annotated[str | None, typer.Option("--kubeconfig", help="Path. Default: $KUBECONFIG, as kubectl.")]


class OutputFormat(StrEnum):
    """Output format of a command."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="For people (text) or programs (json).")]


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
    typer.echo(f"hotpool {command}: {message}", err=True)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2))
