"""The lines of a log: text for people, or one JSON object a line, with the names of the request that each is about.

Standard error is where they go. What a replica's process writes there passes through its gateway (`JsonLines`), so that
a library's words too are a line's message.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, TextIO

from safelight.telemetry.names import current_names

LogFormat = Literal["text", "json"]
ACCESS_LOG = "uvicorn.access"
MAX_LINE_BYTES = 64 * 1024
"""Of what has no end of line yet; a longer one becomes several."""


class TextFormatter(logging.Formatter):
    """The time, the level, who says it, what, and of which request."""

    def __init__(self, process: str = "", *, has_time: bool = True) -> None:
        """`process` says it; the time and the level may be shown by others."""
        begin = f"%(asctime)s{' ' + process if process else ''} %(levelname)s " if has_time else ""
        super().__init__(f"{begin}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        line, request_id = super().formatMessage(record), current_names().request_id
        return line if not request_id or request_id in line else f"{line} (request {request_id})"


class JsonFormatter(logging.Formatter):
    """An object of one line: an exception is one of its fields."""

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        names = current_names()
        exception = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        stack = self.formatStack(record.stack_info) if record.stack_info else None
        return to_line(
            time=_time(record.created),
            level=record.levelname.lower(),
            logger=record.name,
            message=record.getMessage(),
            process=self._name,
            request_id=names.request_id,
            trace_id=names.trace_id,
            span_id=names.span_id,
            **_access(record),
            exception=exception,
            stack=stack,
        )


class JsonLines:
    """Takes what another process writes, and passes on JSON: its own lines as they are, all others as messages."""

    def __init__(self, name: str, write: Callable[[bytes], None]) -> None:
        self._name = name
        self._write = write
        self._begun = b""

    def __call__(self, said: bytes) -> None:
        """Nothing means that there is no more."""
        *lines, self._begun = (self._begun + said).split(b"\n")
        if not said or len(self._begun) > MAX_LINE_BYTES:
            lines, self._begun = [*lines, self._begun], b""
        for line in filter(None, (each.strip() for each in lines)):
            self._write(line + b"\n" if _parsed(line) is not None else self._as_message(line))

    def _as_message(self, line: bytes) -> bytes:
        said = line.decode("utf-8", "replace")
        now = _time(time.time())
        text = to_line(time=now, level="info", logger="stderr", message=said, process=self._name)
        return text.encode() + b"\n"


def to_line(**fields: object) -> str:
    """Those that say anything, in this order; in ASCII, so that no reader ends a line where there is none."""
    return json.dumps({name: value for name, value in fields.items() if value not in (None, "")})


def to_text(lines: str) -> str:
    """What `JsonFormatter` made, as people read it; all else as it is."""
    return "\n".join(_as_text(line) for line in lines.split("\n"))


def handler_for(log_format: LogFormat, name: str = "") -> logging.Handler:
    """What writes to standard error."""
    handler = _LineHandler()
    handler.setFormatter(JsonFormatter(name) if log_format == "json" else TextFormatter(name))
    return handler


def log_everything() -> None:
    """What Python itself and its libraries write becomes lines of the log: warnings, exceptions of nobody's, prints.

    The log's own handler has to be there already.
    """
    logging.captureWarnings(True)
    sys.stdout, sys.stderr = _Written("stdout"), _Written("stderr")
    logger = logging.getLogger("python")

    def log_uncaught(*exception: object) -> None:
        logger.critical("an uncaught exception", exc_info=exception)  # type: ignore[arg-type]

    sys.excepthook = log_uncaught
    threading.excepthook = lambda each: log_uncaught(each.exc_type, each.exc_value, each.exc_traceback)
    sys.unraisablehook = lambda each: logger.error(
        "%s", each.err_msg or "an exception that nobody could be told", exc_info=each.exc_value
    )


class _Written(io.TextIOBase):
    """A stream of which each line becomes one of the log, by a logger of the stream's name."""

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        super().__init__()
        self._logger = logging.getLogger(name)
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            self._logger.info("%s", line)
        return len(text)


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines of the log and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        """A record that makes no line: where it was written is told, and not its values, as Python itself would."""
        error = sys.exception()
        if error is None or isinstance(error, OSError):
            return  # nobody reads the log any more
        where = f"{record.pathname}:{record.lineno}"
        message = f"a line of the log could not be made ({type(error).__name__}): {where}"
        told = logging.LogRecord(record.name, logging.ERROR, record.pathname, record.lineno, message, None, None)
        with suppress(OSError, ValueError):  # it may be closed too
            self.stream.write(f"{self.format(told)}{self.terminator}")
            self.flush()


def _access(record: logging.LogRecord) -> dict[str, object]:
    """What uvicorn says of a request, as fields."""
    if record.name != ACCESS_LOG or not isinstance(record.args, tuple) or len(record.args) != 5:
        return {}
    client, method, path, _, status = record.args
    return {"client": client, "method": method, "path": path, "status": status}


def _time(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _parsed(line: bytes | str) -> dict[str, object] | None:
    """The fields of a line of ours; None if it is none."""
    if line[:1] not in (b"{", "{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and {"time", "level", "logger", "message"} <= value.keys() else None


def _as_text(line: str) -> str:
    fields = _parsed(line)
    if fields is None:
        return line
    text = f"{fields['time']} {str(fields['level']).upper()} {fields['logger']}: {fields['message']}"
    return "\n".join([text, *str(fields.get("exception", "")).splitlines()])
