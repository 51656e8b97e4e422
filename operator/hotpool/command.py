"""`hotpool operator`: the options of the command, and how it ends.

Registered by `__main__`, which gives it what runs. It wires nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer
from kubernetes.aio.config import ConfigException

from hotpool import logs
from hotpool.settings import Settings


class Unusable(Exception):  # noqa: N818 - what people must put right, told in one line.
    """The cluster is not as the operator needs it; the text says what to do."""


def register(app: typer.Typer, run: Callable[[Settings], Coroutine[Any, Any, int]]) -> None:
    """Add the command to the program; `run` runs an operator to its end, and says how the process ends."""

    @app.command()
    def operator(
        *,
        namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="The fleet.")] = None,
        kubeconfig: Annotated[str | None, typer.Option(help="Path of a kubeconfig.")] = None,
        context: Annotated[str | None, typer.Option(help="Context within it.")] = None,
        redis: Annotated[
            str | None, typer.Option(help="redis://, rediss:// or unix://; without it no projection.")
        ] = None,
        redis_prefix: Annotated[str | None, typer.Option(help="First part of the names of all keys.")] = None,
        redis_cluster: Annotated[bool | None, typer.Option("--redis-cluster", help="It is a Redis Cluster.")] = None,
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
            typer.Option("--kube-nodes", help="Follow v1 Nodes: cordon is drain, their labels count, their end too."),
        ] = None,
        listen: Annotated[str | None, typer.Option(help="Address of /healthz, /readyz and /metrics.")] = None,
    ) -> None:
        """Run the operator of one namespace until SIGTERM.

        Every option can also be said in the environment: HOTPOOL_NAMESPACE, HOTPOOL_REDIS_URL, HOTPOOL_LISTEN, …

        Example: hotpool operator -n speech --redis redis://127.0.0.1:6379
        """
        said: dict[str, Any] = {
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
        settings = Settings(**{name: value for name, value in said.items() if value is not None})
        logs.configure(settings.log_level)
        try:
            raise typer.Exit(asyncio.run(run(settings)))
        except (Unusable, ConfigException) as error:
            typer.echo(f"hotpool operator: {error}", err=True)
            raise typer.Exit(1) from None
