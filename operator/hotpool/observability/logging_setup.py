"""How the operator logs: one JSON line for each write or trouble on standard error, coloured text on a terminal.

Called once by `operator`. No line for a heartbeat; no secret in any line.
"""

import logging
import sys

import structlog


def configure(level: str) -> None:
    """Set up structlog, and let kopf's and aiohttp's own loggers speak from warnings on."""
    number = logging.getLevelNamesMapping()[level.upper()]
    terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr)
    logging.getLogger("kubernetes.aio.config").setLevel(logging.ERROR)  # what it warns of ends us, in words of ours
