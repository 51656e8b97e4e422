"""`hotpool operator`: options and exit codes. The parts are wired in `hotpool.app`."""

import asyncio
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from hotpool.cli.options import fail
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command
from hotpool.observability import logging_setup
from hotpool.settings import Settings

_HELP: Final = HelpSections(
    examples={
        "The operator of the fleet speech": "hotpool operator -n speech",
        "With a projection for dispatchers": "hotpool operator -n speech --redis redis://127.0.0.1:6379",
    },
    codes={
        exit_codes.OK: "orderly shutdown after SIGTERM, SIGINT or Ctrl-C",
        exit_codes.FAILED: "leadership lost or a part failed: restart; or an error with its remedy",
        exit_codes.USAGE: "wrong usage",
    },
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command(cls=command(_HELP))
    def operator(
        *,
        namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="The fleet.")] = None,
        kubeconfig: Annotated[str | None, typer.Option(help="Path of a kubeconfig.")] = None,
        context: Annotated[str | None, typer.Option(help="Context within it.")] = None,
        redis: Annotated[
            str | None, typer.Option(help="redis://, rediss:// or unix://; default: no projection.")
        ] = None,
        redis_prefix: Annotated[str | None, typer.Option(help="Prefix of all keys.")] = None,
        redis_cluster: Annotated[
            bool | None, typer.Option("--redis-cluster", help="The server is a node of a Redis Cluster.")
        ] = None,
        redis_sentinels: Annotated[
            str | None,
            typer.Option(help="host:port,host:port of sentinels; the URL's host is then the name of their service."),
        ] = None,
        redis_username: Annotated[str | None, typer.Option(help="ACL user.")] = None,
        redis_password_file: Annotated[str | None, typer.Option(help="File with the password.")] = None,
        redis_sentinel_password_file: Annotated[
            str | None, typer.Option(help="File with the sentinels' password.")
        ] = None,
        redis_ca_file: Annotated[str | None, typer.Option(help="File with the certificates to trust (PEM).")] = None,
        kube_nodes: Annotated[
            bool | None,
            typer.Option("--kube-nodes", help="Watch v1 Nodes: apply cordon as drain, match labels, follow deletion."),
        ] = None,
        listen: Annotated[str | None, typer.Option(help="Address of /healthz, /readyz and /metrics.")] = None,
    ) -> None:
        """Run the operator of one namespace until SIGTERM.

        Every option has an environment variable: HOTPOOL_NAMESPACE, HOTPOOL_REDIS_URL, HOTPOOL_LISTEN, …
        """
        from hotpool.app import StartupError, run

        options: dict[str, Any] = {
            "namespace": namespace,
            "kubeconfig": kubeconfig,
            "context": context,
            "redis_url": redis,
            "redis_prefix": redis_prefix,
            "redis_cluster": redis_cluster,
            "redis_sentinels": redis_sentinels,
            "redis_username": redis_username,
            "redis_password_file": redis_password_file,
            "redis_sentinel_password_file": redis_sentinel_password_file,
            "redis_ca_file": redis_ca_file,
            "kube_nodes": kube_nodes,
            "listen": listen,
        }
        settings = _settings({name: value for name, value in options.items() if value is not None})
        logging_setup.configure(settings.log_level)
        try:
            raise typer.Exit(asyncio.run(run(settings)))
        except StartupError as error:
            fail("operator", str(error), exit_codes.FAILED)


def _settings(options: dict[str, Any]) -> Settings:
    """Return the settings of options and environment; end the command if one is invalid."""
    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        option = f"--{name.removesuffix('_url').replace('_', '-')}"
        where = option if name in options else f"HOTPOOL_{name.upper()}"
        fail("operator", f"{where}: {first['msg'].removeprefix('Value error, ')}", exit_codes.USAGE)
