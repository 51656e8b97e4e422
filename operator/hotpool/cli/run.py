"""`hotpool operator`: options and exit codes. The parts are wired in `hotpool.app`."""

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from hotpool.cli.options import FleetOptions, fail, fleet_options, redis_server_options
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command

if TYPE_CHECKING:
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
        exit_codes.UNAVAILABLE: "no usable kubeconfig",
    },
)


@command(_HELP)
@fleet_options
@click.option("--redis", "redis_url", help="redis://, rediss:// or unix://; default: no projection.")
@click.option("--redis-prefix", help="Prefix of all keys.")
@redis_server_options
@click.option(
    "--kube-nodes",
    is_flag=True,
    default=None,
    help="Watch v1 Nodes: apply cordon as drain, match labels, follow health and deletion.",
)
@click.option("--services", is_flag=True, default=None, help="Publish pools with spec.service as Services.")
@click.option("--endpoints-allowed-cidrs", metavar="CIDR,…", help="Vouch for the addresses in these ranges.")
@click.option("--endpoints-denied-cidrs", metavar="CIDR,…", help="Never use the addresses in these ranges.")
@click.option(
    "--endpoints-service-cidrs",
    metavar="CIDR,…",
    help="Ranges of Services, never used; for a cluster whose ServiceCIDRs cannot be listed.",
)
@click.option(
    "--endpoints-trust-agents/--no-endpoints-trust-agents",
    default=None,
    help="Answer picks with addresses that only the node's own agent claims, too; the default.",
)
@click.option(
    "--pod-namespaces", metavar="NAME,…", help="Read the pods that agents name as services in these namespaces."
)
@click.option(
    "--allow-loopback-endpoints",
    is_flag=True,
    default=None,
    help="Answer picks with loopback addresses, too. For trials on one machine.",
)
@click.option(
    "--pool-metrics/--no-pool-metrics",
    default=None,
    help="Metrics by pool and generator, at most 500 each; the default.",
)
@click.option("--listen", help="Address of /healthz, /readyz and /metrics.")
def operator(*, fleet: FleetOptions, **options: Any) -> None:
    """Run the operator of one namespace until SIGTERM.

    Without -n the namespace is that of the kubeconfig's context, in a pod that of its service account. Every option
    has an environment variable: HOTPOOL_NAMESPACE, HOTPOOL_REDIS_URL, HOTPOOL_LISTEN, …
    """
    from hotpool.app import StartupError, run
    from hotpool.observability import logging_setup

    options |= {"namespace": fleet.given, "kubeconfig": fleet.kubeconfig, "context": fleet.context}
    settings = _with_namespace(_settings({name: value for name, value in options.items() if value is not None}))
    logging_setup.configure(settings.log_level)
    try:
        sys.exit(asyncio.run(run(settings)))
    except StartupError as error:
        fail("operator", str(error), error.exit_code)


def _settings(options: dict[str, Any]) -> "Settings":
    """Return the settings of options and environment; end the command if one is invalid."""
    from pydantic import ValidationError

    from hotpool.settings import Settings

    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        option = f"--{name.removesuffix('_url').replace('_', '-')}"
        where = option if name in options else f"HOTPOOL_{name.upper()}"
        fail("operator", f"{where}: {first['msg'].removeprefix('Value error, ')}", exit_codes.USAGE)


def _with_namespace(settings: "Settings") -> "Settings":
    """Return the settings with a namespace, which is that of the other commands if none is set."""
    fleet = FleetOptions(settings.namespace, settings.kubeconfig, settings.context)
    return settings.model_copy(update={"namespace": fleet.namespace})
