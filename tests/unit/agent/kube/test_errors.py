"""Errors of failed requests, and the wait that the server asked for (requirements B7, B9, B11)."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from hotpool.common.backoff import Backoff
from hotpool_agent.kube.errors import (
    BusyError,
    ConflictError,
    DeniedError,
    KubeError,
    MissingError,
    NotServedError,
    RejectedError,
    StaleError,
    UnauthorizedError,
    UnavailableError,
    kube_error,
    unreachable,
)


def status(message: str, **details: str) -> str:
    return json.dumps({"kind": "Status", "message": message, "details": details})


@pytest.mark.parametrize(
    ("code", "body", "kind", "hint"),
    [
        (401, status("Unauthorized"), UnauthorizedError, "expired or been revoked"),
        (403, status("cannot patch leases"), DeniedError, "check the Role"),
        (403, status("ValidatingAdmissionPolicy 'hotpool-speech-agent' denied request"), DeniedError, "--node"),
        (403, status('User "system:anonymous" cannot patch'), DeniedError, "no credential was sent"),
        (404, status("no", kind="namespaces", name="x"), NotServedError, "create the namespace"),
        (404, "404 page not found", NotServedError, "apply the CRDs"),
        (404, status("no", kind="nodecapabilities", name="n1"), MissingError, "no"),
        (407, "", UnavailableError, "the proxy requires"),
        (409, status("the object has been modified"), ConflictError, "modified"),
        (413, "<html>too large</html>", RejectedError, "too large"),
        (422, status("status: Invalid value: stale report: a later one is stored"), StaleError, "stale"),
        (422, status("status.report.services[0].state: Unsupported value"), RejectedError, "Unsupported"),
        (400, status("unknown field"), RejectedError, "unknown field"),
        (429, "", BusyError, "HTTP 429"),
        (500, status("etcdserver: request timed out"), UnavailableError, "etcdserver"),
        (503, "[]", UnavailableError, "[]"),
        (504, '{"message": null}', UnavailableError, "504"),
        (404, '{"message": "no", "details": "none"}', NotServedError, "apply the CRDs"),
        (404, '{"message": ["no"], "details": [5]}', NotServedError, "apply the CRDs"),
        (500, "[" * 100_000, UnavailableError, "500: [[["),
        (500, '{"message": "half an emoji: \\ud83c"}', UnavailableError, "half an emoji: \ufffd"),
        (500, '{"message": %s}' % ("9" * 5000), UnavailableError, "500: None"),
    ],
)
def test_each_response_has_its_error_with_a_hint(code: int, body: str, kind: type[KubeError], hint: str) -> None:
    error = kube_error(code, body, {})
    assert type(error) is kind
    assert hint in str(error)


NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)


def http(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize("code", [409, 429, 500, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        # Compared with the server's own clock, so that a wrong local clock is harmless.
        ({"Retry-After": http(NOW + timedelta(seconds=9)), "Date": http(NOW)}, 9.0),
        ({"Retry-After": http(NOW - timedelta(hours=1)), "Date": http(NOW)}, 0.0),
        ({"Retry-After": http(NOW)}, None),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "²"}, 0.0),
        ({"Retry-After": http(NOW), "Date": "now"}, 0.0),
        ({"Retry-After": "Mon, 23 Nov 2026 20:00:09", "Date": http(NOW)}, 0.0),
        ({}, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(code: int, headers: dict[str, str], seconds: float | None) -> None:
    pause = kube_error(code, "", headers).retry_after
    assert pause >= 0
    assert seconds is None or pause == seconds


@pytest.mark.parametrize("text", ["9" * 400, "999999", http(datetime(9999, 1, 1, tzinfo=UTC))])
def test_however_long_the_server_asks_for_the_pause_is_bounded(text: str) -> None:
    assert Backoff(1, 15).pause(kube_error(429, "", {"Retry-After": text}).retry_after) <= 15


def test_a_timeout_names_its_length() -> None:
    assert "no response in 5 s" in str(unreachable(TimeoutError(), 5))


def test_an_error_without_a_message_shows_its_class() -> None:
    assert "ConnectionResetError" in str(unreachable(ConnectionResetError(), 5))
