"""`hotpool-agent check`: whether a catalogue can be used, and what the agent makes of it (requirement A1)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hotpool_agent.cli import help_sections as m
from hotpool_agent.cli.common import OutputFormat, OutputOption, exit_with_error

if TYPE_CHECKING:
    from hotpool_agent.catalogue.model import Catalogue, ServiceSpec

_WAYS: Final = ("http", "tcp", "process", "systemd", "file")
_CHECK: Final = m.HelpSections(
    codes={
        m.OK: "the agent can use the catalogue",
        m.USAGE: "it cannot: standard error has a line FILE:LINE: FIELD: REASON for each error; or wrong usage",
    },
    environment=(),
    files=(),
    examples=(
        ("hotpool-agent check node.yaml", "Before the agent is started or told to reload"),
        ("hotpool-agent check node.yaml -o json | jq -r '.services[].id'", "With all defaults filled in, for a script"),
    ),
)


app: Final = typer.Typer(rich_markup_mode=None)


@app.command(cls=m.command(_CHECK))
def check(
    catalogue: Annotated[Path, typer.Argument(metavar="CATALOGUE", help="The node's services, YAML.")],
    *,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Check a catalogue and explain every error at once.

    Each error comes with its line and field. No agent needs to run, and nothing is started. On success the
    services are listed.
    """
    from hotpool_agent.catalogue.loader import CatalogueError, read_catalogue

    try:
        found = read_catalogue(catalogue)
    except CatalogueError as error:
        exit_with_error(str(error), m.USAGE)
    if output is OutputFormat.JSON:
        typer.echo(found.model_dump_json(by_alias=True, indent=2))
    else:
        _show(found)


def _show(catalogue: "Catalogue") -> None:
    from hotpool_agent.cli import tables

    rows = [_row(service) for service in catalogue.services]
    tables.show_rows(("ID", "TYPE", "DEVICE", "PORT", "MODEL", "HOW", "AUTOSTART"), rows)


def _row(service: "ServiceSpec") -> tuple[Any, ...]:
    if service.observe is None:
        how = "run"
    else:
        how = "observe " + ", ".join(way for way in _WAYS if getattr(service.observe, way) is not None)
    auto = "yes" if service.auto_start else "no"
    return service.id, service.type, service.device, service.port, service.model, how, auto if how == "run" else None
