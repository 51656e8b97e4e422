"""Cheap only: how the operator's log looks in tests."""

import structlog


def pytest_configure() -> None:
    """Plain tracebacks: the default draws every local variable, which for a fleet's state takes seconds."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])
