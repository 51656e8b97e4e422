"""The options that every command has, as kubectl has them (requirement F5), and how a command ends without an answer.

It knows no command.
"""

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
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="For people (text) or programs (json).")]


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Which fleet is asked."""

    namespace: str
    kubeconfig: str | None
    context: str | None

    @classmethod
    def of(cls, namespace: str | None, kubeconfig: str | None, context: str | None) -> "FleetOptions":
        """As the options say, else as the kubeconfig says."""
        if not namespace:
            from hotpool.kube.client import namespace_of

            namespace = namespace_of(kubeconfig, context)
        return cls(namespace or "default", kubeconfig, context)


class CommandError(Exception):
    """The command ends with this code and these words."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.code = code


def fail(command: str, words: str, code: int) -> NoReturn:
    """End a command with words on standard error."""
    typer.echo(f"hotpool {command}: {words}", err=True)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """Print for programs."""
    typer.echo(json.dumps(value, indent=2))
