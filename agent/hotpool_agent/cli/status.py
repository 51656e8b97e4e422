"""`hotpool-agent status|report`: what the running agent knows and says (requirements A3, B1, B2, F5)."""

import json
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from hotpool_agent.cli import help_sections as m
from hotpool_agent.cli.common import NodeOption, OutputFormat, OutputOption, send_request
from hotpool_agent.control import protocol

_STATUS: Final = m.HelpSections(
    codes={
        m.OK: "the cluster hears the agent, and no service that is shown has failed",
        m.FAILED: "there is no such service",
        m.USAGE: "wrong usage",
        m.NOT_RUNNING: "no agent of this node runs, or it ended before it answered",
        m.NOT_CONNECTED: "the cluster does not hear the agent, or not all of it: the last lines say which part and why",
        m.SERVICE_FAILED: "the cluster hears the agent; a service that is shown is Failed",
    },
    examples=(
        ("hotpool-agent status --node edge-017", "All services of a node"),
        ("hotpool-agent status faster-whisper -o json | jq -r '.services[0].state'", "One state, for a script"),
    ),
)
_REPORT: Final = m.HelpSections(
    codes={
        m.OK: "the report was printed",
        m.USAGE: "wrong usage",
        m.NOT_RUNNING: "no agent of this node runs, or it ended before it answered",
    },
    examples=(
        ("hotpool-agent report --node edge-017", "What the cluster would be told now"),
        ("hotpool-agent report -o json | jq .capabilities", "Which types are ready, and why others are not"),
    ),
)


class ReportFormat(StrEnum):
    """How `report` prints."""

    YAML = "yaml"
    JSON = "json"


app: Final = typer.Typer(rich_markup_mode=None)


@app.command(cls=m.command(_STATUS))
def status(
    identifier: Annotated[str | None, typer.Argument(metavar="ID", help="Service id in the catalogue.")] = None,
    *,
    node: NodeOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show the services, and whether the cluster hears the agent.

    Of all services, or of one. Below the table: when the API server accepted a report last, where metrics are
    served, and what is wrong.
    """
    answer = send_request(node, protocol.Request(op="status", id=identifier))
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(answer, indent=2))
    else:
        from hotpool_agent.cli import tables

        tables.show(answer)
    raise typer.Exit(_code(answer))


@app.command(cls=m.command(_REPORT))
def report(
    *,
    node: NodeOption = None,
    output: Annotated[ReportFormat, typer.Option("--output", "-o", help="yaml or json.")] = ReportFormat.YAML,
) -> None:
    """Print the report that the agent would send now.

    It is printed exactly as the API server gets it. It goes to status.report of the node's NodeCapability.
    Nothing is sent by this command.
    """
    answer = send_request(node, protocol.Request(op="report"))
    typer.echo(
        json.dumps(answer, indent=2) if output is ReportFormat.JSON else _yaml(answer), nl=output is ReportFormat.JSON
    )


def _code(status: dict[str, Any]) -> int:
    if status["problems"]:
        return m.NOT_CONNECTED
    return m.SERVICE_FAILED if any(service["state"] == "Failed" for service in status["services"]) else m.OK


def _yaml(answer: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    text = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # kubectl reads YAML 1.1, in which a bare `no`, a language, is false: quote what is no string there.
    yaml.version = (1, 1)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel's own hint is `None`
    yaml.dump(answer, text)
    return text.getvalue().removeprefix("%YAML 1.1\n---\n")
