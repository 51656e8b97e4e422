"""Tables for people, such as the status of an agent. Colours only on a terminal.

Depends on the shape of the status response and on nothing else of the agent.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console, OverflowMethod
from rich.table import Table
from rich.text import Text

from hotpool.common.durations import ago

WIDTH: Final = 100
_MAX_DROPPED: Final = 5
"""Maximum of items to name that are left out of the report."""
_SHRINKING: Final = {"ID", "TYPE"}
"""Columns that give way on a narrow terminal."""
_EXPLANATIONS: Final = {
    "DeviceNotAccepted": "its device is not one that counts for its type",
    "Flapping": "it has ended too often; it is offered again when it has run for one to three minutes",
    "NoRoom": "the report has no room for this pod",
}
"""Reason why a running service is not offered → explanation. A reason that concerns all services has one line below."""
_NO_ENDPOINT: Final = {
    "LoopbackOnly": "it answers on loopback, and not at an address of this machine",
    "Local": "the catalogue has scope: local",
    "NoPort": "it has no port in the catalogue, or in the pod",
    "NoAddress": "the node, or the pod, has no address",
    "Unchecked": "it has not been connected to yet",
}
"""Reason why a running service has no endpoint → explanation."""
_STYLES: Final = {"Running": "green", "Failed": "red", "Starting": "yellow", "Stopping": "yellow", "Stopped": "dim"}


def show(status: dict[str, Any], console: Console | None = None) -> None:
    """Print the services, their errors and endpoints, the last accepted report, addresses and problems."""
    console = console or _console()
    titles = ("ID", "TYPE", "STATE", "OFFERED", "SINCE", "PORT", "PID", "RESTARTS", "DESIRED")
    show_rows(titles, map(_row, status["services"]), console)
    for service in status["services"]:
        _show_details(service, console)
    console.print()
    console.print(_summary(status), soft_wrap=True)
    if status.get("draining"):
        line = "draining: no service is offered new work until `hotpool-agent undrain`"
        console.print(Text(line, style="yellow"), soft_wrap=True)
    # Absent from an agent of an older version.
    for line in _dropped(status.get("droppedItems") or ()):
        console.print(Text(_printable(line), style="yellow"), soft_wrap=True)
    for part, problem in status["problems"].items():
        console.print(Text(_printable(f"{part}: {problem}"), style="red"), soft_wrap=True)


def _dropped(items: Sequence[str]) -> Iterator[str]:
    """Yield lines with the number of items that the report leaves out, and the first of them."""
    if items:
        yield f"left out of the report ({len(items)}):"
        yield from (f"    {item}" for item in items[:_MAX_DROPPED])
    if len(items) > _MAX_DROPPED:
        yield f"    and {len(items) - _MAX_DROPPED} more: -o json"


def _show_details(service: dict[str, Any], console: Console) -> None:
    """Print why a service is not offered, or only in part, its endpoint, last error, and the last output."""
    reason = service.get("notOffered")
    if reason in _EXPLANATIONS:
        _show_line(service, f"not offered, {reason}: {_EXPLANATIONS[reason]}", console)
    if dropped := service.get("dropped"):
        _show_line(service, f"{dropped} invalid or too long items are left out of the report", console)
    if (endpoint := _endpoint(service)) is not None:
        _show_line(service, endpoint, console)
    if service["lastError"]:
        _show_line(service, service["lastError"], console)
    for line in service.get("lastOutput") or ():
        console.print(Text(_printable(f"    {line}"), style="dim"), soft_wrap=True)


def _endpoint(service: dict[str, Any]) -> str | None:
    """Return the endpoint if it is not PORT at the node's addresses, or the reason why there is none."""
    # Both keys are absent from an agent of an older version.
    if reason := service.get("endpointReason"):
        return f"no endpoint, {reason}: {_NO_ENDPOINT.get(reason, 'see the documentation')}"
    endpoint = service.get("endpoint")
    if not endpoint or not endpoint["addresses"]:
        return None
    port = endpoint["port"]
    return "endpoint " + ", ".join(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in endpoint["addresses"])


def _show_line(service: dict[str, Any], text: str, console: Console) -> None:
    console.print(Text(_printable(f"{service['id']}: {text}")), soft_wrap=True)


def show_rows(titles: Sequence[str], rows: Iterable[Sequence[Any]], console: Console | None = None) -> None:
    """Print rows below column titles."""
    console = console or _console()
    table = Table(box=None, pad_edge=False, header_style="", expand=False)
    for title in titles:
        # The ellipsis is no character of ASCII.
        overflow: OverflowMethod = "ellipsis" if console.encoding.startswith("utf") else "crop"
        table.add_column(title, no_wrap=title not in _SHRINKING, overflow=overflow, max_width=24)
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def _console() -> Console:
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def _summary(status: dict[str, Any]) -> Text:
    """Return lines: the age of the last accepted report, addresses for clients, and the address of the metrics."""
    accepted = status["acceptedAt"]
    last = f"last report accepted {ago(accepted, datetime.now(UTC))} ago" if accepted else "no report accepted yet"
    head = f"node {status['node']}, namespace {status['namespace']}: {last}"
    # Absent from an agent of an older version.
    addresses = ", ".join(f"{address['ip']} ({address['source']})" for address in status.get("addresses") or ())
    clients = f"addresses for clients: {addresses or 'none'}\n" if "addresses" in status else ""
    return Text(f"{head}\n{clients}metrics: http://{status['listening']}/metrics", style="dim")


def _row(service: dict[str, Any]) -> tuple[Any, ...]:
    return (
        service["id"],
        service["type"],
        Text(service["state"], style=_STYLES.get(service["state"], "")),
        _offered(service),
        ago(service["since"], datetime.now(UTC)),
        service["port"],
        service["pid"],
        service["restarts"],
        service["desired"],
    )


def _offered(service: dict[str, Any]) -> Text | None:
    """Return yes or no. None: an agent of an older version, which does not know, runs."""
    if "notOffered" not in service:
        return None
    return Text("yes") if service["notOffered"] is None else Text("no", style="yellow")


def _cell(value: Any) -> Text:
    return value if isinstance(value, Text) else Text("-" if value is None else _printable(str(value)))


def _printable(text: str) -> str:
    """Return the text without control sequences and surrogates, which services may write and terminals obey."""
    return "".join(character if character.isprintable() else "?" for character in text.expandtabs())
