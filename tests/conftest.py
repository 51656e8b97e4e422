"""Cheap only: how the operator's log looks in tests, and that programs under test heed Ctrl-C."""

import signal

import structlog


def pytest_configure() -> None:
    """Plain tracebacks: the default draws every local variable, which for a fleet's state takes seconds.

    A job of a shell's background ignores SIGINT, and so would every program that it starts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])
