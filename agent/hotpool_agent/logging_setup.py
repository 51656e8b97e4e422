"""Log set-up: JSON lines on standard error, coloured text on a terminal. A line that cannot be written is lost."""

import os
import sys
from typing import Any

import structlog

from hotpool.common.lossy_stream import protect_stderr


def configure() -> None:
    """Set up structlog."""
    protect_stderr()
    terminal, colours = sys.stderr.isatty(), not os.environ.get("NO_COLOR")
    renderer: Any = structlog.dev.ConsoleRenderer(colors=colours) if terminal else structlog.processors.JSONRenderer()
    last = [] if terminal else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
