"""Configures logging: structlog for our layers, with the loggers of the standard library in the same form.

Who calls it: `process.py`, once, before anything logs. One logger per layer (`structlog.get_logger("signaling.http")`).
"""

import logging
import sys
from io import StringIO
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo

from signaling.config.values import LogLevel

QUIET_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "asyncio", "numba", "aiortc", "aioice")
"""Libraries that are logged from warnings upwards only. Uvicorn's lines would also contain access tokens."""


_LINES = ("exception", "stack")
"""Values that have more than one line."""


def _console() -> structlog.dev.ConsoleRenderer:
    # The renderer's own tracebacks show local variables: tokens, passwords, and 70 KB for one exception.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback)


def _traceback(out: TextIO, exc_info: ExcInfo) -> None:
    plain = StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    out.write("\n" + _printable_lines(plain.getvalue().strip("\n")))


def printable(text: str) -> str:
    """Escape all characters but visible ones and spaces.

    A terminal obeys control characters, and text behind a line end would look like another event. Many values contain
    what clients send, and so do the messages of exceptions.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _printable_lines(text: str) -> str:
    """Escape text line by line, indented so that no line looks like an event."""
    return "\n".join("  " + printable(line) for line in text.split("\n"))


def _make_printable(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """Escape all texts of an event. Other values are written by `repr`, which escapes them."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _printable_lines(value) if key in _LINES else printable(value)
    return event


def configure_logging(level: LogLevel, as_json: bool) -> None:
    """Write everything from `level` upwards to standard error, one line for each event."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if as_json:
        shared.append(structlog.processors.format_exc_info)
    # JSON escapes by itself, and whoever reads it gets the text as it was.
    renderers: list[Any] = [structlog.processors.JSONRenderer()] if as_json else [_make_printable, _console()]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
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
        # What is below the level costs a call: structlog's other loggers would first make a copy of each event.
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
