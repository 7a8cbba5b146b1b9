"""Where log lines go and what they look like: structlog for our layers, the standard library's loggers brought in.

Who calls it: `cli.py`, once, before anything logs. One logger per layer (`structlog.get_logger("signaling.http")`).
"""

import logging
import sys
from typing import Any

import structlog

from signaling.config import LogLevel

QUIET_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "asyncio", "numba", "aiortc", "aioice")
"""Libraries whose chatter below a warning is not ours to show. Uvicorn's lines would also hold access tokens."""


def _console() -> structlog.dev.ConsoleRenderer:
    # The renderer's own tracebacks show local variables: tokens, passwords, and 70 KB for one exception.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def configure_logging(level: LogLevel, as_json: bool) -> None:
    """Send everything from `level` up to standard error, one line per event."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if as_json:
        shared.append(structlog.processors.format_exc_info)
    renderer = structlog.processors.JSONRenderer() if as_json else _console()
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
