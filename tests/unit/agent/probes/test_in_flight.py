"""The number of requests in progress, in the response of a service (requirement B5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.catalogue.model import HttpCheck, InFlight
from hotpool_agent.probes.in_flight import parse_in_flight

METRIC = InFlight(http=HttpCheck(), metric="vllm:num_requests_running")
PATH = InFlight(http=HttpCheck(), jsonPath=".slots.busy")

PAGE = """\
# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b} c"} 2.0
vllm:num_requests_running{engine="1",} 1 1700000000000
vllm:num_requests_running_total 99
vllm:num_requests_waiting{engine="0"} 5
"""


@pytest.mark.parametrize(
    ("source", "body", "number"),
    [
        (METRIC, PAGE, 3),
        (METRIC, "vllm:num_requests_running 0\n", 0),
        (METRIC, "vllm:num_requests_running 0.2\r\n", 1),
        (METRIC, "vllm:num_requests_waiting 1\n", None),
        (METRIC, "vllm:num_requests_running NaN\n", None),
        (METRIC, "vllm:num_requests_running +Inf\n", None),
        (METRIC, "vllm:num_requests_running -1\n", None),
        (METRIC, "vllm:num_requests_running many\n", None),
        (PATH, '{"slots": {"busy": 2}}', 2),
        (PATH, '{"slots": {"busy": 1e400}}', None),
        (PATH, '{"slots": {"busy": true}}', None),
        (PATH, '{"slots": [1]}', None),
        (PATH, "[" * 100_000, None),
        (PATH, "", None),
    ],
)
def test_a_number_that_is_not_valid_is_unknown_and_never_zero(source: InFlight, body: str, number: int | None) -> None:
    assert parse_in_flight(source, body) == number


@given(st.text(), st.sampled_from([METRIC, PATH]))
def test_any_body_is_a_number_or_unknown(body: str, source: InFlight) -> None:
    number = parse_in_flight(source, body)
    assert number is None or number >= 0
