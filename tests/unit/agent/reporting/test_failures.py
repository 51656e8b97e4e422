"""Failures to report the present state (requirements A12, B11), with a simulated clock."""

from hotpool_agent.reporting.failures import FAILURE_SECONDS, ReportFailures


def built(
    failures: ReportFailures, now: float, *, failed: bool, reported: bool = False, rejected: bool = False
) -> bool:
    return failures.on_build(now, failed=failed, reported=reported, rejected=rejected)


def test_heartbeats_stop_when_a_failure_was_not_reported_for_ten_seconds() -> None:
    failures = ReportFailures(1, 60)
    for now in (100.0, 105.0, 109.9):
        built(failures, now, failed=True)
        assert not failures.stop_heartbeats(now)
    assert failures.stop_heartbeats(100 + FAILURE_SECONDS)
    assert built(failures, 120, failed=True, reported=True)
    assert not failures.stop_heartbeats(120)


def test_heartbeats_continue_when_the_report_can_be_built_again() -> None:
    failures = ReportFailures(1, 60)
    built(failures, 100, failed=True)
    assert failures.stop_heartbeats(111)
    assert built(failures, 111, failed=False)
    assert not failures.stop_heartbeats(111)
    assert failures.retry_at is None


def test_an_internal_error_lasts_until_a_report_is_accepted() -> None:
    failures = ReportFailures(1, 60)
    failures.on_internal_error(100)
    built(failures, 105, failed=False, reported=True)
    failures.on_internal_error(108)
    assert failures.stop_heartbeats(110)
    failures.on_success()
    assert not failures.stop_heartbeats(110)


def test_attempts_after_a_rejection_get_rarer_up_to_the_limit() -> None:
    failures, now = ReportFailures(1, 60), 0.0
    pauses = []
    for _ in range(12):
        failures.on_rejection(now, 0)
        built(failures, now, failed=False, rejected=True)
        assert failures.retry_at is not None
        pauses.append(failures.retry_at - now)
        now = failures.retry_at
        assert failures.is_retry_due(now)
    assert pauses[0] <= 1
    assert 30 <= pauses[-1] <= 60
    built(failures, now, failed=False)
    failures.on_rejection(now, 0)
    assert (failures.retry_at or now) - now <= 1


def test_a_report_that_cannot_be_built_is_built_again_after_a_pause() -> None:
    failures = ReportFailures(1, 60)
    built(failures, 0, failed=True)
    first = failures.retry_at
    assert first is not None
    built(failures, first / 2, failed=True)
    assert failures.retry_at == first
    built(failures, first, failed=True, reported=True)
    assert failures.retry_at > first
