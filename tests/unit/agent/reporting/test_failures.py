"""Failures to report the present state (requirements A12, B11), with a simulated clock."""

from hotpool_agent.reporting.failures import FAILURE_SECONDS, Pauses, ReportFailures

NONE = ReportFailures(Pauses(1, 60))


def built(
    failures: ReportFailures, now: float, *, failed: bool, reported: bool = False, rejected: bool = False
) -> ReportFailures:
    return failures.on_build(now, 1.0, failed=failed, reported=reported, rejected=rejected)


def test_heartbeats_stop_when_a_failure_was_not_reported_for_ten_seconds() -> None:
    failures = NONE
    for now in (100.0, 105.0, 109.9):
        failures = built(failures, now, failed=True)
        assert not failures.stop_heartbeats(now)
    assert failures.stop_heartbeats(100 + FAILURE_SECONDS)
    assert not built(failures, 120, failed=True, reported=True).stop_heartbeats(120)


def test_heartbeats_continue_when_the_report_can_be_built_again() -> None:
    failures = built(NONE, 100, failed=True)
    assert failures.stop_heartbeats(111)
    failures = built(failures, 111, failed=False)
    assert not failures.stop_heartbeats(111)
    assert failures.retry_at is None


def test_an_internal_error_lasts_until_a_report_is_accepted() -> None:
    failures = NONE.on_internal_error(100)
    failures = built(failures, 105, failed=False, reported=True).on_internal_error(108)
    assert failures.stop_heartbeats(110)
    assert not failures.on_success().stop_heartbeats(110)


def test_attempts_after_a_rejection_get_rarer_up_to_the_limit() -> None:
    failures, now = NONE, 0.0
    pauses = []
    for _ in range(12):
        failures = built(failures.on_rejection(now, 1.0, 0), now, failed=False, rejected=True)
        assert failures.retry_at is not None
        pauses.append(failures.retry_at - now)
        now = failures.retry_at
        assert failures.is_retry_due(now)
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert pauses[-1] == 60
    failures = built(failures, now, failed=False).on_rejection(now, 1.0, 0)
    assert failures.retry_at == now + 1


def test_a_report_that_cannot_be_built_is_built_again_after_a_pause() -> None:
    failures = built(NONE, 0, failed=True)
    first = failures.retry_at
    assert first is not None
    failures = built(failures, first / 2, failed=True)
    assert failures.retry_at == first
    failures = built(failures, first, failed=True, reported=True)
    assert failures.retry_at == first + 2


def test_a_pause_is_jittered_and_as_long_as_the_server_asks_up_to_the_limit() -> None:
    pauses = Pauses(1, 60)
    assert pauses.next(0.5) == 0.5
    assert pauses.next(0.5, at_least=7) == 7
    assert pauses.next(0.5, at_least=3600) == 60
    for _ in range(10**4):
        pauses = pauses.after_failure()
    assert pauses.next(1.0) == 60
    assert pauses.after_success().next(1.0) == 1
