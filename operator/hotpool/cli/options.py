"""Options of every command, as kubectl has them (requirement F5), and exits with an error."""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

import click

from hotpool.common import exit_codes

if TYPE_CHECKING:
    from hotpool.lookup import Lookup

F = TypeVar("F", bound=Callable[..., Any])

logging.getLogger("kubernetes").addHandler(logging.NullHandler())  # a command prints one line per error itself


class OutputFormat(StrEnum):
    """Output format of a command."""

    TEXT = "text"
    JSON = "json"


_FLEET_OPTIONS: Final = (
    click.option("--namespace", "-n", help="The fleet. Default: the namespace of the kubeconfig's context."),
    click.option("--context", help="Context within the kubeconfig."),
    click.option("--kubeconfig", help="Path. Default: $KUBECONFIG, as kubectl."),
)


@dataclass(frozen=True)
class FleetOptions:
    """Connection options of a command. `given`: the namespace of -n."""

    given: str | None
    kubeconfig: str | None
    context: str | None

    @cached_property
    def namespace(self) -> str:
        """Namespace of the fleet; a missing one is that of the kubeconfig's context, else `default`.

        Ends the command with one line if the kubeconfig is needed and not usable.
        """
        if self.given:
            return self.given
        from hotpool.common.kubeconfig import Target, TargetError, namespace_of

        try:
            return namespace_of(Target(self.kubeconfig, self.context))
        except TargetError as error:
            fail(click.get_current_context().info_name or "", str(error), exit_codes.UNAVAILABLE)


def fleet_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--namespace`, `--context` and `--kubeconfig` to a command, which gets them as `fleet`."""

    @wraps(function)
    def command(*, namespace: str | None, kubeconfig: str | None, context: str | None, **values: Any) -> None:
        function(fleet=FleetOptions(namespace, kubeconfig, context), **values)

    wrapped: Callable[..., None] = command
    for option in reversed(_FLEET_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def manifest_option(*, required: bool) -> Callable[[F], F]:
    """Return a decorator that adds `--filename`, `-f`. The command gets `files`."""
    text = "A file, a folder, or - for standard input; may be repeated."
    return click.option("--filename", "-f", "files", multiple=True, required=required, help=text)


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Redis of a command, with the options of the operator."""

    url: str
    prefix: str
    cluster: bool
    sentinels: str | None
    username: str | None
    password_file: str | None
    sentinel_password_file: str | None
    ca_file: str | None

    def lookup(self, namespace: str) -> "Lookup":
        """Return a look-up client. Raises ValueError for options that are invalid."""
        from hotpool.lookup import Credentials, Lookup

        return Lookup.from_url(
            self.url,
            namespace=namespace,
            prefix=self.prefix,
            cluster=self.cluster,
            sentinels=self.sentinels.split(",") if self.sentinels else (),
            credentials=Credentials(self.username, self.password_file, self.ca_file, self.sentinel_password_file),
        )


_REDIS_SERVER: Final = {
    "--redis-cluster": "The server is a node of a Redis Cluster.",
    "--redis-sentinels": "host:port,host:port of sentinels; the URL's host is the name of their service.",
    "--redis-username": "ACL user.",
    "--redis-password-file": "File with the password.",
    "--redis-sentinel-password-file": "File with the sentinels' password.",
    "--redis-ca-file": "File with the certificates to trust (PEM).",
}


def redis_server_options(function: F, *, environment: bool = False) -> F:
    """Add the options of a server of Redis to a command; with `environment` also their variables as defaults."""
    for name, text in reversed(_REDIS_SERVER.items()):
        variable = f"HOTPOOL_{name.strip('-').replace('-', '_').upper()}" if environment else None
        flag: dict[str, Any] = {"is_flag": True, "default": False if environment else None}
        more = flag if name == "--redis-cluster" else {}
        function = click.option(name, envvar=variable, show_envvar=environment, help=text, **more)(function)
    return function


def redis_options(help_text: str, *, required: bool) -> Callable[[F], F]:
    """Return a decorator that adds the options of Redis. The command gets `redis`: RedisOptions, None without a URL."""
    url = click.option(
        "--redis", "redis_url", envvar="HOTPOOL_REDIS_URL", show_envvar=True, required=required, help=help_text
    )
    prefix = click.option(
        "--prefix",
        "redis_prefix",
        envvar="HOTPOOL_REDIS_PREFIX",
        show_envvar=True,
        default="hotpool",
        show_default=True,
        help="Prefix of the keys in Redis.",
    )

    def decorate(function: F) -> F:
        @wraps(function)
        def command(**values: Any) -> Any:
            given = {
                name.removeprefix("redis_"): values.pop(name) for name in list(values) if name.startswith("redis_")
            }
            return function(redis=RedisOptions(**given) if given["url"] else None, **values)

        wrapped: Any = command
        wrapped = redis_server_options(wrapped, environment=True)
        return cast("F", url(prefix(wrapped)))

    return decorate


ERROR_CODES: Final[Mapping[int, str]] = {
    exit_codes.USAGE: "wrong usage",
    exit_codes.UNAVAILABLE: "the API server cannot be reached or answers with an error",
    exit_codes.FORBIDDEN: "not allowed: the message names verb and resource",
    exit_codes.NOT_INSTALLED: "hotpool's definitions are not installed in the cluster",
}
"""Exit codes of every command that reads from the API server."""


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
