"""`hotpool-agent check`: errors of a catalogue, or its services with all defaults (requirement A1)."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hotpool.common import exit_codes
from hotpool.common.cli_help import command, output_option
from hotpool_agent.cli.common import OutputFormat, exit_with_error
from hotpool_agent.cli.help import AgentHelp

if TYPE_CHECKING:
    from hotpool_agent.catalogue.model import Catalogue, ServiceSpec

_HELP: Final = AgentHelp(
    codes={
        exit_codes.OK: "the agent can use the catalogue",
        exit_codes.FAILED: "it can, but there are warnings: FILE:LINE: FIELD: warning: REASON on standard error",
        exit_codes.USAGE: "wrong usage, or errors in the catalogue: FILE:LINE: FIELD: REASON on standard error",
    },
    environment=(),
    files=(),
    examples={
        "Before a start or reload of the agent": "hotpool-agent check node.yaml",
        "With all defaults filled in, for a script": "hotpool-agent check node.yaml -o json | jq -r '.services[].id'",
    },
)


@command(_HELP)
@click.argument("catalogue", type=click.Path(path_type=Path))
@output_option(OutputFormat)
def check(*, catalogue: Path, output: OutputFormat) -> None:
    """Check a catalogue and print every error and warning.

    Each has its line and field. Works without a running agent, and starts nothing. If there is no error, the services
    are listed. A warning is about a program that does not exist here, a port of two services, a field without effect,
    or a word that is probably misspelt. Programs are looked up in the PATH of this command.
    """
    from hotpool_agent.catalogue.loader import CatalogueError, check_catalogue

    try:
        found = check_catalogue(catalogue)
    except CatalogueError as error:
        exit_with_error(str(error), exit_codes.USAGE)
    if found.invalid:
        exit_with_error("\n".join(found.problems), exit_codes.USAGE)
    checked = found.catalogue
    if output is OutputFormat.JSON:
        # In ASCII, which every terminal has.
        click.echo(json.dumps(checked.model_dump(mode="json", by_alias=True), indent=2))
    else:
        _show(checked)
    if found.problems:
        click.echo("\n".join(found.problems), err=True)
        sys.exit(exit_codes.FAILED)


def _show(catalogue: "Catalogue") -> None:
    from hotpool_agent.cli import tables

    rows = [_row(service) for service in catalogue.services]
    tables.show_rows(("ID", "TYPE", "DEVICE", "PORT", "MODEL", "HOW", "AUTOSTART"), rows)


def _row(service: "ServiceSpec") -> tuple[Any, ...]:
    from hotpool_agent.catalogue.model import PROBE_KINDS

    observe = ", ".join(kind for kind in PROBE_KINDS if getattr(service.observe, kind, None) is not None)
    how = f"observe {observe}" if observe else "run"
    auto = "yes" if service.auto_start else "no"
    return service.id, service.type, service.device, service.port, service.model, how, auto if how == "run" else None
