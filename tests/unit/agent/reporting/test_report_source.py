"""The last resort when a report cannot be built (requirement A12)."""

import pytest
from tests.support.fake_pods import pod
from tests.support.pod_services import BLANK_REPORT, EMPTY_CATALOGUE, service_of

from hotpool_agent.metrics import Metrics
from hotpool_agent.reporting.report_builder import ReportContent, build, to_json
from hotpool_agent.reporting.report_source import ReportSource

POD = pod("whisper", attributes='{"tier": ["\\ud83c"]}')


class Builder:
    """Builds a report, or raises `error`."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.leaving = False

    def content(self) -> ReportContent:
        if self.error:
            raise self.error
        return build(EMPTY_CATALOGUE, [service_of(POD)], BLANK_REPORT, leaving=False)


def source_of(builder: Builder, metrics: Metrics | None = None) -> ReportSource:
    return ReportSource(builder, BLANK_REPORT, metrics or Metrics())


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), RecursionError(), MemoryError(), UnicodeEncodeError("utf-8", "\ud83c", 0, 1, "no")]
)
def test_whatever_building_raises_no_type_is_ready(error: Exception) -> None:
    builder = Builder()
    source = source_of(builder)
    assert [item.ready for item in source.read().report.capabilities] == [True]
    builder.error, builder.leaving = error, True
    small = source.read()
    assert small.minimal
    assert [(item.type, item.ready, item.reason) for item in small.report.capabilities] == [
        ("asr", False, "ReportFailed")
    ]
    assert (small.report.leaving, small.report.services) == (True, ())
    assert type(error).__name__ in (source.problem or "")
    builder.error = None
    assert source.read().offers("whisper")
    assert source.problem is None


def test_a_first_report_that_cannot_be_built_has_no_types() -> None:
    builder = Builder()
    builder.error = ValueError("no")
    document = to_json(source_of(builder).read().report)
    assert (document["capabilities"], document["instance"]) == ([], BLANK_REPORT.instance)


def test_items_that_are_left_out_are_counted_named_and_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics()
    source = source_of(Builder(), metrics)
    source.read()
    source.read()
    assert source.dropped_items == ("whisper: annotations: invalid",)
    assert metrics.registry.get_sample_value("hotpool_agent_dropped_items") == 1
    assert capsys.readouterr().out.count("item left out of the report") == 1
