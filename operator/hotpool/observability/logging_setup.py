"""Log set-up: JSON lines on standard error, coloured text on a terminal. A line that cannot be written is lost.

One line per error or important change, none per heartbeat, and no secret in any line.
"""

import logging
import os
import sys

import structlog

from hotpool.common.lossy_stream import protect_stderr


def configure(level: str) -> None:
    """Set up structlog with this level, and the loggers of kopf and aiohttp with at least WARNING."""
    number = logging.getLevelNamesMapping()[level.upper()]
    protect_stderr()
    terminal, colours = sys.stderr.isatty(), not os.environ.get("NO_COLOR")
    renderer = structlog.dev.ConsoleRenderer(colors=colours) if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr)
