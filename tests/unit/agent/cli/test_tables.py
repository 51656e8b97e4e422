"""The table of `hotpool-agent status` (requirements A3, F5)."""

import io
from typing import Any, get_args

import pytest
from rich.console import Console

from hotpool.api.capability import EndpointReason
from hotpool_agent.cli import tables

LONG: dict[str, Any] = {
    "id": "faster-whisper-large-v3-turbo",
    "type": "semantic-repair-of-all-sorts",
    "state": "Starting",
    "since": "2020-01-01T00:00:00Z",
    "port": 65535,
    "pid": 4194304,
    "restarts": 12,
    "desired": "Running",
    "lastError": None,
    "notOffered": "Starting",
    "dropped": 0,
}


def shown(*services: dict[str, Any], width: int = 100, encoding: str = "utf-8", **more: Any) -> list[str]:
    """Return the lines that a terminal of this width and encoding gets."""
    status: dict[str, Any] = {"node": "n", "namespace": "f", "acceptedAt": None, "listening": "l", "problems": {}}
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    tables.show({**status, "services": services, **more}, Console(file=file, width=width, highlight=False))
    file.flush()
    return raw.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_only_names_are_shortened_on_a_narrow_terminal(width: int) -> None:
    titles, row, *_ = shown(LONG, width=width)
    assert titles.split() == ["ID", "TYPE", "STATE", "OFFERED", "SINCE", "PORT", "PID", "RESTARTS", "DESIRED"]
    assert len(row) <= width
    assert row.split()[2:] == ["Starting", "no", row.split()[4], "65535", "4194304", "12", "Running"]


@pytest.mark.parametrize("reason", ["Flapping", "DeviceNotAccepted", "NoRoom"])
def test_a_running_service_that_is_not_offered_has_a_line_with_the_reason(reason: str) -> None:
    lines = shown(LONG | {"id": "s", "state": "Running", "notOffered": reason})
    assert lines[1].split()[2:4] == ["Running", "no"]
    assert lines[2].startswith(f"s: not offered, {reason}: ")


@pytest.mark.parametrize("reason", [*get_args(EndpointReason), "OfTheFuture"])
def test_a_service_without_an_endpoint_has_a_line_with_the_reason(reason: str) -> None:
    lines = shown(LONG | {"id": "s", "state": "Running", "endpoint": None, "endpointReason": reason})
    assert lines[2].startswith(f"s: no endpoint, {reason}: ")
    assert ("see the documentation" in lines[2]) == (reason == "OfTheFuture")


def test_an_endpoint_has_a_line_where_it_is_not_at_the_nodes_addresses() -> None:
    endpoint: dict[str, Any] = {"addresses": ["10.1.0.7", "fd00:1::7"], "port": 8000, "appProtocol": None}
    running = LONG | {"id": "s", "state": "Running", "endpoint": endpoint, "endpointReason": None}
    addresses = [{"ip": "10.0.3.7", "source": "Route"}, {"ip": "fd00::7", "source": "Route"}]
    lines = shown(running, addresses=addresses)
    assert lines[2] == "s: endpoint 10.1.0.7:8000, [fd00:1::7]:8000"
    assert "addresses for clients: 10.0.3.7 (Route), fd00::7 (Route)" in lines
    lines = shown(running | {"endpoint": endpoint | {"addresses": []}}, addresses=[])
    assert not [line for line in lines if line.startswith("s: endpoint")]
    assert "addresses for clients: none" in lines


def test_dropped_items_are_counted() -> None:
    lines = shown(LONG | {"id": "s", "state": "Running", "notOffered": None, "dropped": 2})
    assert lines[1].split()[3] == "yes"
    assert lines[2] == "s: 2 invalid or too long items are left out of the report"


@pytest.mark.parametrize("count", [1, 6])
def test_items_that_the_report_leaves_out_are_counted_and_the_first_are_named(count: int) -> None:
    items = [f"pod-{number}: annotations: \x1binvalid" for number in range(count)]
    lines = shown(LONG, droppedItems=items)
    first = lines.index(f"left out of the report ({count}):")
    named = [f"    pod-{number}: annotations: ?invalid" for number in range(min(count, 5))]
    assert lines[first + 1 :] == named + (["    and 1 more: -o json"] if count > 5 else [])


def test_a_report_that_leaves_nothing_out_has_no_such_line() -> None:
    assert not [line for line in shown(LONG, droppedItems=[]) if "left out" in line]


def test_the_last_error_and_output_of_a_service_are_shown_without_control_sequences() -> None:
    failed = {"state": "Failed", "lastError": "exited\x1b[2J with \ud800", "lastOutput": ["a\tb\x07", "\x1b]0;x\x07é"]}
    lines = shown(LONG | {"id": "s"} | failed)
    assert lines[2:5] == ["s: exited?[2J with ?", "    a   b?", "    ?]0;x?é"]


def test_a_drain_has_a_line() -> None:
    assert "draining: no service is offered new work until `hotpool-agent undrain`" in shown(draining=True)


def test_an_agent_of_an_older_version_has_no_reasons() -> None:
    old = {key: value for key, value in LONG.items() if key not in {"notOffered", "dropped"}}
    lines = shown(old | {"id": "s"})
    assert lines[1].split()[2:4] == ["Starting", "-"]
    assert not [line for line in lines if "endpoint" in line or "addresses" in line]


def test_an_ascii_terminal_gets_ascii() -> None:
    assert shown(LONG, width=80, encoding="ascii")[1].split()[2] == "Starting"
