"""`hotpool-agent status|report`: state of the running agent, and its next report (requirements A3, B1, B2, F5)."""

import json
import sys
from enum import StrEnum
from typing import Any, Final

import click

from hotpool.common import exit_codes
from hotpool.common.cli_help import command, output_option
from hotpool_agent.cli.common import OutputFormat, node_option, send_request
from hotpool_agent.cli.help import AgentHelp
from hotpool_agent.control import protocol

_STATUS: Final = AgentHelp(
    codes={
        exit_codes.OK: "connected to the cluster; every shown service that should run is offered, or the node drains",
        exit_codes.FAILED: "there is no such service",
        exit_codes.USAGE: "wrong usage",
        exit_codes.NOT_RUNNING: "no agent of this node is running, or it does not respond",
        exit_codes.NOT_CONNECTED: "not connected to the cluster, or only in part; the last lines name the cause",
        exit_codes.NOT_OFFERED: "connected; a shown service is Failed, or should run and is not or only partly offered",
    },
    examples={
        "All services of a node": "hotpool-agent status --node edge-017",
        "One state, for a script": "hotpool-agent status faster-whisper -o json | jq -r '.services[0].state'",
    },
)
_REPORT: Final = AgentHelp(
    codes={
        exit_codes.OK: "the report was printed",
        exit_codes.USAGE: "wrong usage",
        exit_codes.NOT_RUNNING: "no agent of this node is running, or it does not respond",
    },
    examples={
        "The report that would be sent now": "hotpool-agent report --node edge-017",
        "Which types are ready, and why others are not": "hotpool-agent report -o json | jq .capabilities",
    },
)


class ReportFormat(StrEnum):
    """Output format of `report`."""

    YAML = "yaml"
    JSON = "json"


@command(_STATUS)
@click.argument("identifier", metavar="[ID]", required=False)
@node_option
@output_option(OutputFormat)
def status(*, identifier: str | None, node: str | None, output: OutputFormat) -> None:
    """Show the services and the connection to the cluster.

    Shows all services, or one, and why a service is not offered. Lines below the table: errors and last output of
    services, endpoints that differ from the port at the node's addresses, age of the last report that the API server
    accepted, the node's addresses, address of the metrics, and problems.
    """
    response = send_request(node, protocol.Request(op="status", id=identifier))
    if output is OutputFormat.JSON:
        click.echo(json.dumps(response, indent=2))
    else:
        from hotpool_agent.cli import tables

        tables.show(response)
    sys.exit(exit_code(response))


@command(_REPORT)
@node_option
@output_option(ReportFormat)
def report(*, node: str | None, output: ReportFormat) -> None:
    """Print the report that the agent would send now.

    The agent writes it in this form to status.report of the node's NodeCapability. This command sends nothing.
    """
    response = send_request(node, protocol.Request(op="report"))
    if output is ReportFormat.JSON:
        click.echo(json.dumps(response, indent=2))
    else:
        click.echo(_yaml(response), nl=False)


def exit_code(status: dict[str, Any]) -> int:
    """Return the exit code for a response to `status`."""
    if status["problems"]:
        return exit_codes.NOT_CONNECTED
    return exit_codes.NOT_OFFERED if any(map(_is_missing, status["services"])) else exit_codes.OK


def _is_missing(service: dict[str, Any]) -> bool:
    """Return True if the service is not offered, or only in part, against the wish of the machine's owner."""
    should_run = service["desired"] == "Running" or (service["desired"] is None and service["state"] != "Stopped")
    # A running agent of an older version does not name reasons.
    kept_back = service.get("notOffered") not in {None, "Draining", "Leaving"}
    return service["state"] == "Failed" or (should_run and kept_back) or bool(service.get("dropped"))


def _yaml(document: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    text = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # kubectl reads YAML 1.1, where an unquoted `no`, a language, is false.
    yaml.version = (1, 1)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel's own hint is `None`
    yaml.dump(document, text)
    return text.getvalue().removeprefix("%YAML 1.1\n---\n")
